"""Redactions of related events over a restart, on both engines."""

from __future__ import annotations

from homeserver.rooms.related_redactions import With
from homeserver.rooms.send import Draft
from homeserver.storage import related_redactions
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.storage.related_redactions import RelatedRedaction
from tests.world import World, WorldRoom


async def replied(world: World) -> tuple[str, WorldRoom, StoredEvent, StoredEvent]:
    """A message with an answer in its thread."""
    alice = world.user("alice")
    room = await world.public_room(alice)
    message = await room.send(alice, "hello")
    return alice, room, message, await reply(room, alice, message)


async def reply(room: WorldRoom, sender: str, message: StoredEvent) -> StoredEvent:
    relation = {"rel_type": "m.thread", "event_id": message.id}
    return await room.send_event(sender, "m.room.message", {"body": "x", "m.relates_to": relation})


async def is_redacted(world: World, event: StoredEvent) -> bool:
    stored = await world.events.by_id(event.id)
    return stored is not None and bool(stored.flags & REDACTED)


async def test_what_was_left_undone_is_done_after_a_restart(database: Database) -> None:
    world = await World.open(database)
    alice, room, message, answer = await replied(world)
    redaction = await room.redact(alice, message.id)
    one = RelatedRedaction(
        redaction_id=redaction.id,
        room_nid=message.room_nid,
        parent_id=message.id,
        sender=alice,
        rel_types=("m.thread", "m.replace"),
        slot=None,
        is_thread_root=True,
        is_admin=False,
        own_only=True,
        reason="enough",
        expires_ts=world.clock.now_ms() + 1000,
    )
    await database.write(lambda tx: related_redactions.add(tx, one))
    assert await related_redactions.newest(database.read, world.clock.now_ms(), 9) == [one]
    world = await world.reopen()
    assert not await is_redacted(world, answer)
    await world.actions.related_redactions.resume()
    await world.actions.related_redactions.idle()
    assert await is_redacted(world, answer)
    late = await reply(WorldRoom(world, room.room_id), alice, message)
    await world.actions.related_redactions.idle()
    assert await is_redacted(world, late)


async def test_which_children_are_meant_is_stored_with_the_redaction(database: Database) -> None:
    world = await World.open(database)
    alice, room, message, answer = await replied(world)
    draft = Draft(alice, "m.room.redaction", {}, redacts=message.id)
    redaction = await world.actions.related_redactions.redact(room.room_id, draft, With(("*",)), None)
    (kept,) = await related_redactions.newest(database.read, world.clock.now_ms(), 9)
    assert (kept.redaction_id, kept.parent_id, kept.rel_types) == (redaction.id, message.id, ("*",))
    await world.actions.related_redactions.idle()
    assert await is_redacted(world, answer)


async def test_what_is_over_is_forgotten(database: Database) -> None:
    world = await World.open(database)
    alice, room, message, _ = await replied(world)
    draft = Draft(alice, "m.room.redaction", {}, redacts=message.id)
    await world.actions.related_redactions.redact(room.room_id, draft, With(("*",)), None)
    await world.actions.related_redactions.idle()
    world.clock.advance(7 * 86_400)
    await world.actions.related_redactions.forget_expired()
    assert await related_redactions.newest(database.read, 0, 9) == []
    late = await reply(room, alice, message)
    await world.actions.related_redactions.idle()
    assert not await is_redacted(world, late)
