"""Which thread events are in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.rooms.threads import MAIN, thread_of, threads_of
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.world import World, WorldRoom


@pytest.fixture
async def world(sqlite_database: Database) -> AsyncIterator[World]:
    world = await World.open(sqlite_database)
    yield world
    await world.background.close()


async def relate(room: WorldRoom, rel_type: str, parent: str) -> StoredEvent:
    relation = {"rel_type": rel_type, "event_id": parent, "key": "+"}
    alice = room.world.user("alice")
    return await room.send_event(alice, "m.room.message", {"body": "", "m.relates_to": relation})


async def test_what_relates_to_something_in_a_thread_is_in_it_too(world: World) -> None:
    room = await world.public_room(world.user("alice"))
    root = await room.send(world.user("alice"), "root")
    said = await relate(room, "m.thread", root.id)
    edit = await relate(room, "m.replace", said.id)
    second = await relate(room, "m.reference", edit.id)
    third = await relate(room, "m.reference", second.id)
    too_far = await relate(room, "m.reference", third.id)
    on_root = await relate(room, "m.annotation", root.id)
    asked = [root, said, edit, second, third, too_far, on_root]

    threads = await threads_of(world.events, [stored.event for stored in asked])

    assert [threads[stored.id] for stored in asked] == [MAIN, *[root.id] * 4, MAIN, MAIN]
    assert await thread_of(world.events, edit.event) == root.id


async def test_a_parent_in_another_room_leads_nowhere(world: World) -> None:
    alice = world.user("alice")
    room, other = await world.public_room(alice), await world.public_room(alice)
    root = await room.send(alice, "root")
    said = await relate(room, "m.thread", root.id)
    elsewhere = await relate(other, "m.annotation", said.id)
    unknown = await relate(room, "m.annotation", "$unknown")

    threads = await threads_of(world.events, [elsewhere.event, unknown.event])

    assert set(threads.values()) == {MAIN}
