"""Which transactions led to the newest events: certain where it answers, and bounded."""

from __future__ import annotations

from homeserver.rooms import recent_transactions
from homeserver.rooms.recent_transactions import RecentTransactions
from homeserver.storage.database import Database
from tests.sync.server import SyncServer

PHONE, TABLET = "PHONE", "TABLET"


async def test_the_device_that_sent_an_event_is_known_and_no_other(database: Database) -> None:
    server = await SyncServer.open(database)
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    recent = RecentTransactions(server.world.positions)
    sent, other = await room.send(alice, "by a transaction"), await room.send(alice, "by none")
    recent.note(sent.id, PHONE, "t1")
    assert recent.of([sent, other], PHONE) == {sent.nid: "t1"}
    assert recent.of([sent, other], TABLET) == {}


async def test_of_what_was_sent_before_the_start_the_database_is_asked(database: Database) -> None:
    server = await SyncServer.open(database)
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    before = await room.send(alice, "before")
    recent = RecentTransactions(server.world.positions)
    after = await room.send(alice, "after")
    assert recent.of([after], PHONE) == {}
    assert recent.of([before, after], PHONE) is None


async def test_the_oldest_are_let_go_and_known_to_be_gone(database: Database) -> None:
    server = await SyncServer.open(database)
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    recent = RecentTransactions(server.world.positions)
    first = await room.send(alice, "first")
    recent.note(first.id, PHONE, "first")
    for number in range(2 * recent_transactions.KEPT):
        assert recent.of([first], PHONE) == {first.nid: "first"}
        recent.note(f"$made-up-{number}", PHONE, str(number))
    assert recent.of([first], PHONE) is None
