"""What an append costs the database: statements, round trips, bytes on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mode

import pytest

from homeserver.storage.append import Append
from homeserver.storage.database import Database
from tests.performance.counting import counted_statements
from tests.storage.appends import StoredRoom, store_all

#: rooms, events, event_json, transaction_ids, event_transactions.
TABLES = 5


async def test_a_message_takes_a_statement_a_table_and_no_savepoint(sqlite_database: Database) -> None:
    room = await StoredRoom.make(sqlite_database)
    async with counted_statements(sqlite_database) as statements:
        assert await store_all(sqlite_database, [room.message()]) == [None]

    assert len(statements.written) == TABLES + len(["BEGIN", "COMMIT"])


async def test_fifty_messages_share_one_transaction(sqlite_database: Database) -> None:
    rooms = [await StoredRoom.make(sqlite_database, nid) for nid in range(1, 11)]
    async with counted_statements(sqlite_database) as statements:
        await store_all(sqlite_database, [room.message() for room in rooms for _ in range(5)])

    # Each room moves on once; every row counts here, though one statement has them all.
    assert len(statements.written) == len(rooms) + 50 * (TABLES - 1) + len(["BEGIN", "COMMIT"])


@pytest.mark.parametrize("engine", ["postgres"])
@pytest.mark.parametrize("messages", [1, 50])
async def test_any_number_of_messages_is_one_round_trip(database: Database, messages: int) -> None:
    rooms = [await StoredRoom.make(database, nid) for nid in range(1, 11)]
    # The first time that there are several the types of the parameters are asked for.
    await store_all(database, [rooms[0].message(), rooms[0].message()])
    async with counted_statements(database) as statements:
        ended = await store_all(database, [rooms[each % 10].message() for each in range(messages)])

    assert ended == [None] * messages
    assert len(statements.written) == 1


@pytest.mark.parametrize("engine", ["postgres"])
async def test_a_message_that_comes_alone_takes_no_arrays(database: Database) -> None:
    room = await StoredRoom.make(database)
    async with counted_statements(database) as statements:
        await store_all(database, [room.message()])

    assert len(statements.written) == 1
    assert "unnest" not in statements.written[0]


async def test_a_message_that_comes_alone_writes_few_pages(sqlite_database: Database, tmp_path: Path) -> None:
    room = await StoredRoom.make(sqlite_database)
    await store_all(sqlite_database, [room.message() for _ in range(100)])
    written = []
    for _ in range(20):
        before = log_pages(tmp_path)
        await store_all(sqlite_database, [room.message()])
        written.append(log_pages(tmp_path) - before)

    # Five tables, and of the events the indexes by id, place and time; more only where one is split.
    assert mode(written) <= TABLES + 3


def log_pages(folder: Path) -> int:
    """How many pages SQLite's log has in that folder, each with a head of 24 bytes."""
    return (folder / "inglenook.db-wal").stat().st_size // (4096 + 24)


async def test_a_message_takes_less_than_a_kilobyte_on_disk(sqlite_database: Database) -> None:
    room = await StoredRoom.make(sqlite_database)
    await store_all(sqlite_database, [room.message() for _ in range(500)])

    grown = await growth(sqlite_database, room.message, 1_000)

    # The event, its JSON and its indexes; and for a day the transaction id.
    assert grown < 1_024


@pytest.mark.parametrize("members", [100, 5_000])
async def test_a_change_of_membership_takes_the_same_in_any_room(
    sqlite_database: Database, members: int
) -> None:
    room = await StoredRoom.make(sqlite_database)
    await store_all(sqlite_database, [room.member(number) for number in range(members)])
    numbers = iter(range(1_000))

    grown = await growth(sqlite_database, lambda: room.member(next(numbers) % members), 500)

    assert grown < 800


async def growth(database: Database, make: Callable[[], Append], count: int) -> float:
    """Bytes by which each of some appends makes the database larger."""
    before = await size(database)
    await store_all(database, [make() for _ in range(count)])
    return (await size(database) - before) / count


async def size(database: Database) -> int:
    pages: int = await database.read.fetch_value(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    )
    return pages
