"""What somebody was in rooms that others made them leave, on both engines."""

from __future__ import annotations

from homeserver.storage import rooms
from homeserver.storage.database import Database
from homeserver.storage.state import NO_EVENT
from tests.world import World


async def test_what_was_before_a_kick_or_a_ban_is_found(database: Database) -> None:
    world = await World.open(database)
    alice, bob = world.user("alice"), world.user("bob")
    kicked, banned, left, never = [await world.public_room(alice) for _ in range(4)]
    for room in (kicked, banned, left):
        await room.join(bob)
    await kicked.set_state(alice, "m.room.member", {"membership": "leave"}, state_key=bob)
    for room in (banned, never):
        await room.set_state(alice, "m.room.member", {"membership": "ban"}, state_key=bob)
    await left.leave(bob)
    rows = dict(await rooms.before_being_sent_away(database.read, bob))
    nids = [(await room.live()).nid for room in (kicked, banned, never)]
    assert set(rows) == set(nids)
    events = await world.events.by_nids([rows[nid] for nid in nids[:2]])
    assert [stored.event.content["membership"] for stored in events.values()] == ["join", "join"]
    assert rows[nids[2]] == NO_EVENT
