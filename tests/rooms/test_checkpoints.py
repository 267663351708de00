"""Checkpoints of a room's state: written in the background, never changing what the state was."""

from __future__ import annotations

import pytest

from homeserver.storage import state as state_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.world import World, WorldRoom


@pytest.fixture
async def world(database: Database) -> World:
    return await World.open(database)


async def topics(room: WorldRoom, sender: str, first: int, last: int) -> list[StoredEvent]:
    return [
        await room.set_state(sender, "m.room.topic", {"topic": str(number)}) for number in range(first, last)
    ]


async def checkpoint(world: World, room: WorldRoom) -> None:
    live = await room.live()
    await world.timeline._checkpoint(live, live.epoch, live.state_ver)


async def topic_after(world: World, room: WorldRoom, stored: StoredEvent) -> str:
    live = await world.rooms.get(room.room_id)
    assert stored.state_after is not None
    whole = await world.states.events_at(live, stored.state_after)
    topic: str = whole["m.room.topic", ""].event.content["topic"]
    return topic


async def test_every_version_reads_the_same_with_and_without(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    sent = await topics(room, alice, 0, 3)
    before = [await topic_after(world, room, stored) for stored in sent]
    await checkpoint(world, room)
    sent += await topics(room, alice, 3, 6)
    await checkpoint(world, room)
    sent += await topics(room, alice, 6, 9)
    assert before == ["0", "1", "2"]
    for known in (world, await world.reopen()):
        assert [await topic_after(known, room, stored) for stored in sent] == [str(n) for n in range(9)]


async def test_a_checkpoint_holds_the_whole_state_at_its_version(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    await topics(room, alice, 0, 2)
    live = await room.live()
    ver, expected = live.state_ver, await world.states.state_at(live, live.state_ver)
    await checkpoint(world, room)
    await topics(room, alice, 2, 4)
    assert await state_storage.checkpoint_before(world.db.read, live.nid, 0, live.state_ver) == (
        ver,
        expected,
    )


async def test_a_checkpoint_begun_before_the_room_was_adopted_anew_belongs_to_its_epoch(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    await topics(room, alice, 0, 2)
    live = await room.live()
    checkpointing = world.timeline._checkpoint(live, live.epoch, live.state_ver)
    live.epoch, live.epoch_start = 1, world.positions.next()
    await checkpointing
    assert await state_storage.checkpoint_before(world.db.read, live.nid, 1, live.epoch_start) == (0, {})
    assert live.checkpoint_ver == 0


async def test_many_changes_lead_to_a_checkpoint_by_themselves(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    live = await room.live()
    live.changes_since_checkpoint = 1023
    await topics(room, alice, 0, 1)
    for task in list(world.background._tasks):
        await task
    assert live.checkpoint_ver == live.state_ver
    assert (await (await world.reopen()).rooms.get(room.room_id)).checkpoint_ver == live.state_ver
