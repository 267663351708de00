"""Appends that are stored together: all of them, in order, and a failing one alone fails."""

from __future__ import annotations

import asyncio

import pytest

from homeserver.storage import events, rooms, transaction_ids
from homeserver.storage.append import Append, Store
from homeserver.storage.database import Database, Transaction
from homeserver.storage.rooms import StaleRoomError
from tests.storage.appends import DEVICE, SENDER, StoredRoom, store_all

#: What an append may have and still be stored as rows beside others.
IN_ROWS = {"expected_last_pos", "room", "new", "arrived", "also", "keep_redacted_until", "names_left"}


async def test_messages_of_several_rooms_are_stored_together(database: Database) -> None:
    one, other = await StoredRoom.make(database, 1), await StoredRoom.make(database, 2)
    appends = [one.message(), other.message(), one.message("And another")]

    assert await store_all(database, appends) == [None, None, None]

    for append in appends:
        stored = await events.by_id(database.read, append.new[0].id)
        assert stored is not None
        assert (stored.pos, stored.event.json) == (append.new[0].pos, append.new[0].event.json)
    for room in (one, other):
        assert await rooms.by_nid(database.read, room.row.nid) == room.row


async def test_a_transaction_id_is_known_by_its_request_and_by_its_event(database: Database) -> None:
    room = await StoredRoom.make(database)
    append = room.message()
    stored = append.new[0]
    await store_all(database, [append])

    scope = f"rooms/{room.row.room_id}/send/m.room.message"
    txn_id = f"m{stored.nid}"
    assert await transaction_ids.event_id(database.read, SENDER, DEVICE, scope, txn_id) == stored.id
    assert await transaction_ids.of_events(database.read, DEVICE, [stored.nid]) == {stored.nid: txn_id}
    assert await transaction_ids.of_events(database.read, "TABLET", [stored.nid]) == {}
    old = await transaction_ids.older(database.read, stored.nid + 1)
    await database.write(lambda tx: transaction_ids.remove(tx, old))
    assert await transaction_ids.of_events(database.read, DEVICE, [stored.nid]) == {}


async def test_a_stale_append_among_many_fails_alone(database: Database) -> None:
    fresh = [await StoredRoom.make(database, nid) for nid in range(1, 6)]
    stale = await StoredRoom.make(database, 6)
    stale.message()  # decided upon, and never stored
    appends = [room.message() for room in (*fresh[:3], stale, *fresh[3:])]

    ended = await store_all(database, appends)

    assert [type(error) for error in ended] == [type(None)] * 3 + [StaleRoomError] + [type(None)] * 2
    known = await events.by_ids(database.read, [append.new[0].id for append in appends])
    assert len(known) == 5
    assert appends[3].new[0].id not in known


async def test_what_builds_upon_a_stale_append_fails_with_it(database: Database) -> None:
    room = await StoredRoom.make(database)
    room.message()
    ended = await store_all(database, [room.message(), room.message()])
    assert [type(error) for error in ended] == [StaleRoomError, StaleRoomError]


async def test_a_lone_stale_append_says_what_is_wrong_with_it(database: Database) -> None:
    room = await StoredRoom.make(database)
    room.message()
    with pytest.raises(StaleRoomError):
        await database.write(Store(room.message()))


async def test_other_works_keep_their_place_between_appends(database: Database) -> None:
    room = await StoredRoom.make(database)

    async def newest(tx: Transaction) -> int:
        position: int = await tx.fetch_value("SELECT last_pos FROM rooms WHERE room_nid = 1")
        return position

    async def refuse(tx: Transaction) -> None:
        await tx.execute("DELETE FROM rooms")
        raise LookupError("changed my mind")

    first, second = room.message(), room.message()
    before = database.write(newest)
    writes = [database.write(Store(first)), database.write(newest)]
    refused = database.write(refuse)
    writes += [database.write(Store(second)), database.write(newest)]
    results = await asyncio.gather(before, *writes)

    with pytest.raises(LookupError):
        await refused
    assert results == [1, None, first.room.last_pos, None, second.room.last_pos]


def test_an_append_with_anything_out_of_the_ordinary_is_not_rows() -> None:
    ordinary = StoredRoom(1).message()
    assert Store(ordinary).is_rows()
    for name in Append.__struct_fields__:
        if name not in IN_ROWS:
            append = StoredRoom(1).message()
            setattr(append, name, [object()])
            assert not Store(append).is_rows(), name
    ordinary.also = [lambda tx: None]  # type: ignore[list-item, return-value]
    assert not Store(ordinary).is_rows()
