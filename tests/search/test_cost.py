"""What a search costs: statements, however many messages and rooms there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
from msgspec.structs import replace

from homeserver.protocol.segmentation import terms_of, tokens_of, write_words
from homeserver.search.documents import field_term, room_term
from homeserver.search.index import _STORED_AT_ONCE
from homeserver.search.search import MAX_CANDIDATES
from homeserver.storage import search as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.search import BODY, Document, _insert
from tests.rooms.counting import Counting
from tests.search.library import library_over

ALICE = "@alice:here.example"
ROOMS, MESSAGES = 60, 300
MANY = 20_000
#: For everything but the events that are looked at, a hundred at once.
_MOST = 25


async def test_a_search_takes_few_statements_in_many_rooms(database: Database) -> None:
    counting = cast("Any", Counting(database))
    async with library_over(counting) as library:
        rooms = [await library.room(ALICE) for _ in range(ROOMS)]
        for number in range(MESSAGES):
            rare = "pelican" if number % 100 == 0 else "sparrow"
            await rooms[number % ROOMS].send(ALICE, f"a {rare}, number {number}")
        assert (await library.search(ALICE, "pelican"))["count"] == 3
        counting.reads = counting.rows = 0
        assert (await library.search(ALICE, "pelican"))["count"] == 3
        assert counting.reads <= _MOST
        assert counting.rows <= 3 * _MOST + ROOMS
        counting.reads = 0
        in_one = await library.search(ALICE, "sparrow", filter={"rooms": [rooms[1].room_id], "limit": 50})
        assert in_one["count"] == MESSAGES // ROOMS
        assert counting.reads <= _MOST


async def test_a_search_among_many_messages_and_rooms_takes_few_statements(database: Database) -> None:
    """Documents placed straight into the index: a common word is bounded, a rare one is found below it."""
    counting = cast("Any", Counting(database))
    async with library_over(counting) as library:
        room = await library.room(ALICE)
        rare = await room.send(ALICE, "pelican in the beginning")
        await library.search(ALICE, "pelican")
        searching = library.server.sync_server.searching
        assert searching is not None
        tokens = tokens_of("a sparrow like all the others")
        hashes = searching.index.hashes.of({*terms_of(tokens), room_term(rare.room_nid), field_term(BODY)})
        sparrow = Document(0, 0, rare.room_nid, ALICE, BODY, False, 1, write_words(tokens), " ".join(hashes))
        many = [
            replace(sparrow, event_nid=nid, source_nid=nid) for nid in range(rare.nid + 1, rare.nid + MANY)
        ]
        for start in range(0, MANY, 5_000):
            await database.write(partial(_insert, documents=many[start : start + 5_000]))
        counting.reads = counting.rows = 0
        assert (await library.search(ALICE, "pelican"))["count"] == 1
        assert counting.reads <= _MOST
        assert counting.rows <= 3 * _MOST
        counting.reads = counting.rows = 0
        found = await library.search(ALICE, "sparrow")
        # None of them is an event that could be shown.
        assert found["results"] == []
        assert "next_batch" in found
        assert counting.reads <= 4 * _MOST
        assert counting.rows <= 4 * MAX_CANDIDATES + _MOST


async def test_long_messages_are_indexed_in_transactions_that_are_short(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []
    insert = storage._insert

    async def counted(tx: Transaction, documents: Sequence[Document]) -> None:
        stored.append(sum(len(one.words) for one in documents))
        await insert(tx, documents)

    monkeypatch.setattr(storage, "_insert", counted)
    async with library_over(database) as library:
        room = await library.room(ALICE)
        for number in range(12):
            await room.send(ALICE, f"pelican {number} " + "sparrow " * 1_000)
        assert (await library.search(ALICE, "pelican"))["count"] == 12

    assert sum(stored) > 2 * _STORED_AT_ONCE
    assert max(stored) <= _STORED_AT_ONCE
