"""What redactions take away: how long it is kept, on both engines, and what else makes an end of it."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError
from homeserver.rooms.purge import Purge
from homeserver.rooms.redacted_content import RedactedContent
from homeserver.rooms.send import Draft
from homeserver.storage import redacted_content
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.world import World, WorldRoom

DAY_MS = 86_400_000


def content_of(world: World, keep_ms: int = DAY_MS) -> RedactedContent:
    return RedactedContent(world.db, world.states, world.clock, keep_ms)


async def original(
    world: World, room: WorldRoom, event_id: str, user_id: str, *, is_admin: bool = False
) -> str:
    """The text a message had, as one user is told."""
    stored = await world.events.by_id(event_id)
    assert stored is not None
    live = await room.live()
    event = await content_of(world).original(live, stored, user_id, is_admin=is_admin)
    return str(event.content["body"])


async def redacted_message(world: World) -> tuple[str, WorldRoom, StoredEvent]:
    alice = world.user("alice")
    room = await world.public_room(alice)
    message = await room.send(alice, "hello")
    await room.redact(alice, message.id)
    return alice, room, message


async def test_it_outlives_a_restart(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    alice, room, message = await redacted_message(world)
    world = await world.reopen()
    assert await original(world, WorldRoom(world, room.room_id), message.id, alice) == "hello"


async def test_what_is_over_is_taken_off_the_disk(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    _, _, message = await redacted_message(world)
    await content_of(world).forget_expired()
    assert await redacted_content.json_of(database.read, message.nid, 0) == message.event.json
    world.clock.advance(DAY_MS / 1000)
    await content_of(world).forget_expired()
    assert await redacted_content.json_of(database.read, message.nid, 0) is None


async def test_who_keeps_it_for_less_time_forgets_what_was_to_be_kept_longer(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    _, _, message = await redacted_message(world)
    await content_of(world, 0).forget_expired()
    assert await redacted_content.json_of(database.read, message.nid, 0) is None


async def test_a_purge_takes_it_too(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    alice, room, message = await redacted_message(world)
    await room.send(alice, "the newest stays")
    purge = Purge(world.db, world.rooms, world.events, also=(redacted_content.forget,), pause=0)
    await purge.older_than(room.room_id, world.clock.now_ms() + 1)
    assert await redacted_content.json_of(database.read, message.nid, 0) is None


async def test_administrators_see_it_without_moderating(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    _, room, message = await redacted_message(world)
    root = world.user("root")
    with pytest.raises(MatrixError, match="redacted content"):
        await original(world, room, message.id, root)
    assert await original(world, room, message.id, root, is_admin=True) == "hello"


async def test_what_was_redacted_before_it_came_was_never_here(database: Database) -> None:
    world = await World.open(database, keep_redacted_ms=DAY_MS)
    alice = world.user("alice")
    room = await world.public_room(alice)
    parent = await room.send(alice, "before")
    late = await room.compose_after([parent], Draft(alice, "m.room.message", {"body": "late"}))
    await room.redact(alice, late.event.event_id)
    stored = await room.append(late)
    assert stored.redacted_by is not None
    with pytest.raises(MatrixError) as refusal:
        await original(world, room, stored.id, alice)
    assert refusal.value.errcode == "FI.MAU.MSC2815_UNREDACTED_CONTENT_NOT_RECEIVED"
