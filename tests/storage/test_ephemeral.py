"""Receipts, device messages and presence on both engines."""

from __future__ import annotations

from functools import partial

from homeserver.storage import presence, receipts, to_device
from homeserver.storage.database import Database, Transaction
from homeserver.storage.presence import StoredPresence
from homeserver.storage.receipts import UNTHREADED, Receipt


def receipt(user_id: str, event_pos: int, pos: int, thread_id: str = UNTHREADED) -> Receipt:
    return Receipt(user_id, "m.read", thread_id, f"${event_pos}", event_pos, 1000, pos)


async def test_a_receipt_only_moves_forward(database: Database) -> None:
    advanced = [
        await database.write(lambda tx, one=one: receipts.advance(tx, 7, one))  # type: ignore[misc]
        for one in (
            receipt("@a:x", 5, 10),
            receipt("@a:x", 4, 11),
            receipt("@a:x", 5, 12),
            receipt("@a:x", 6, 13),
        )
    ]
    assert advanced == [True, False, False, True]
    assert await receipts.of_user(database.read, 7, "@a:x") == [receipt("@a:x", 6, 13)]


async def test_changed_receipts_are_found_by_position(database: Database) -> None:
    async def store(tx: Transaction) -> None:
        await receipts.advance(tx, 7, receipt("@a:x", 5, 10))
        await receipts.advance(tx, 7, receipt("@b:x", 5, 11))
        await receipts.advance(tx, 7, receipt("@b:x", 5, 12, "main"))
        await receipts.advance(tx, 8, receipt("@b:x", 5, 13))

    await database.write(store)
    assert [one.pos for one in await receipts.changed(database.read, 7, 10, 11)] == [11]
    assert await receipts.newest(database.scan, [7, 8, 9]) == {7: 12, 8: 13}


async def test_device_messages_wait_until_they_are_removed(database: Database) -> None:
    async def store(tx: Transaction) -> None:
        await to_device.add(tx, [("@a:x", "ONE", "1"), ("@a:x", "TWO", "2")], 10)
        await to_device.add(tx, [("@a:x", "ONE", "3")], 11)

    await database.write(store)
    assert await to_device.waiting(database.read, "@a:x", "ONE", 99, 10) == [(10, "1"), (11, "3")]
    assert await to_device.waiting(database.read, "@a:x", "ONE", 99, 1) == [(10, "1")]
    assert await to_device.waiting(database.read, "@a:x", "ONE", 10, 10) == [(10, "1")]
    await database.write(lambda tx: to_device.remove_upto(tx, "@a:x", "ONE", 10))
    assert await to_device.waiting(database.read, "@a:x", "ONE", 99, 10) == [(11, "3")]
    await database.write(lambda tx: to_device.remove_device(tx, "@a:x", "ONE"))
    assert await to_device.waiting(database.read, "@a:x", "ONE", 99, 10) == []
    assert await to_device.waiting(database.read, "@a:x", "TWO", 99, 10) == [(10, "2")]


async def test_another_servers_message_is_noted_once(database: Database) -> None:
    async def note(tx: Transaction) -> list[bool]:
        return [await to_device.note_received(tx, "b.example", "m1", now) for now in (100, 200)]

    assert await database.write(note) == [True, False]
    assert await database.write(lambda tx: to_device.forget_received(tx, 150)) == 1


async def test_presence_is_replaced(database: Database) -> None:
    for state in ("online", "offline"):
        stored = StoredPresence("@a:x", state, None, 5)
        await database.write(partial(presence.put_all, rows=[stored]))
    assert await presence.of_user(database.read, "@a:x") == StoredPresence("@a:x", "offline", None, 5)
    assert await presence.joined_somewhere(database.read, ["@a:x"]) == set()
