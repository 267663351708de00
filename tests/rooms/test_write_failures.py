"""Writes that fail: what was acknowledged stays, what was not is never shown, and the room goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from homeserver.protocol.events import Event
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage import events as event_storage
from homeserver.storage.append import Also
from homeserver.storage.database import Database, Transaction
from homeserver.storage.errors import NotStored
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import StaleRoomError
from tests.rooms.elsewhere import Elsewhere
from tests.world import ELSEWHERE, World, WorldRoom

T = TypeVar("T")


class Unreliable:
    """A database whose transactions fail when the test says so; PostgreSQL's and SQLite's alike."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.engine = db.engine
        self.read, self.scan = db.read, db.scan
        #: How many of the next writes fail.
        self.failing = 0
        #: Set by every write that is asked for.
        self.queued = asyncio.Event()

    def write(self, work: Callable[[Transaction], Awaitable[T]]) -> asyncio.Future[T]:
        self.queued.set()
        if self.failing == 0:
            return self._db.write(work)
        self.failing -= 1

        async def fail(tx: Transaction) -> T:
            await work(tx)
            raise NotStored("the disk is full")

        return self._db.write(fail)

    async def close(self) -> None:
        await self._db.close()


@pytest.fixture
async def unreliable(database: Database) -> Unreliable:
    return Unreliable(database)


@pytest.fixture
async def world(unreliable: Unreliable) -> World:
    return await World.open(unreliable)


def refuses(_: Event) -> Also:
    async def fail(tx: Transaction) -> None:
        raise RuntimeError("no")

    return fail


def message(sender: str, body: str) -> Draft:
    return Draft(sender, "m.room.message", {"body": body})


async def bodies_stored(world: World, room: WorldRoom) -> list[str]:
    live = await room.live()
    rows = await event_storage.timeline_backward(world.db.read, live.nid, live.last_pos, 100)
    return [row.event.content["body"] for row in reversed(rows) if row.event.type == "m.room.message"]


async def test_what_was_queued_behind_a_failed_write_is_decided_anew(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    await room.send(alice, "stays")
    sends = [
        world.send.send(room.room_id, message(alice, "fails"), refuses),
        *(world.send.send(room.room_id, message(alice, f"behind {n}")) for n in range(3)),
    ]
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, *[StoredEvent] * 3]
    after = await room.send(alice, "goes on")
    bodies = ["stays", "behind 0", "behind 1", "behind 2", "goes on"]
    assert await bodies_stored(world, room) == bodies
    assert [stored.event.content["body"] for stored in (await room.timeline())[-5:]] == bodies
    assert (await room.live()).tips[0].id == after.id
    shown = [stored.id for news in world.announced for stored in news.events]
    assert shown == [stored.id for stored in await room.timeline()]


async def test_memberships_queued_behind_a_failed_write_are_decided_anew(world: World) -> None:
    alice, bob, carol = world.user("alice"), world.user("bob"), world.user("carol")
    room = await world.public_room(alice)
    await room.join(bob)

    outcomes = await asyncio.gather(
        world.send.send(room.room_id, message(alice, "fails"), refuses),
        world.membership.leave(bob, room.room_id),
        world.membership.join(carol, room.room_id),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [RuntimeError, type(None), type(None)]
    memberships = [await room.content("m.room.member", user) for user in (bob, carol)]
    assert [content["membership"] for content in memberships] == ["leave", "join"]


@pytest.mark.parametrize("seed", range(3))
async def test_exactly_the_acknowledged_sends_of_many_are_stored(
    world: World, unreliable: Unreliable, seed: int
) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    rooms = [await world.public_room(alice), await world.public_room(bob)]
    acknowledged: dict[str, list[str]] = {room.room_id: [] for room in rooms}

    async def sends(room: WorldRoom, sender: str, number: int) -> None:
        for turn in range(6):
            body = f"{number}.{turn}"
            unreliable.failing = int((number * 7 + turn + seed) % 5 == 0)
            try:
                await world.send.send(room.room_id, message(sender, body))
            except (NotStored, StaleRoomError):
                continue
            acknowledged[room.room_id].append(body)

    await asyncio.gather(*(sends(rooms[number % 2], (alice, bob)[number % 2], number) for number in range(8)))
    unreliable.failing = 0
    for room in rooms:
        assert sorted(await bodies_stored(world, room)) == sorted(acknowledged[room.room_id])
    again = await world.reopen()
    for room in rooms:
        live, reloaded = await world.rooms.get(room.room_id), await again.rooms.get(room.room_id)
        assert live.row() == reloaded.row()
        assert [one.id for one in live.recent] == [one.id for one in reloaded.recent]


async def test_state_that_failed_to_be_stored_is_not_said_to_be_set(
    world: World, unreliable: Unreliable
) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    unreliable.failing = 1
    outcomes = await asyncio.gather(
        room.set_state(alice, "m.room.topic", {"topic": "tea"}),
        room.set_state(alice, "m.room.topic", {"topic": "tea"}),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [NotStored, StoredEvent]
    assert await room.content("m.room.topic") == {"topic": "tea"}


async def test_a_listener_that_fails_does_not_hold_up_the_room(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)

    def broken(_: Any) -> None:
        raise RuntimeError("a listener's bug")

    world.timeline._announce = broken
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    await asyncio.wait_for(room.send(alice, "one"), 5)
    await asyncio.wait_for((await room.live()).settle(), 5)
    assert len(errors) == 1
    assert await bodies_stored(world, room) == ["one"]


async def test_one_event_from_two_servers_is_stored_once(world: World) -> None:
    room, elsewhere, event = await message_from_elsewhere(world)
    first, second = await asyncio.gather(elsewhere.sends(event), elsewhere.sends(event))
    assert first.nid == second.nid
    assert not room.broken


async def test_an_event_on_its_way_to_the_disk_is_not_stored_as_an_outlier_too(
    world: World, unreliable: Unreliable
) -> None:
    room, elsewhere, event = await message_from_elsewhere(world)
    unreliable.queued.clear()
    received = asyncio.ensure_future(elsewhere.sends(event))
    await unreliable.queued.wait()
    known = await elsewhere.inbound.store_outliers(room, [event.pdu])
    assert known[event.event_id].nid == (await received).nid


async def message_from_elsewhere(world: World) -> tuple[Room, Elsewhere, Event]:
    """A room with somebody from elsewhere, who has just written something."""
    alice, bob = world.user("alice"), f"@bob:{ELSEWHERE}"
    made = await world.public_room(alice)
    room, elsewhere = await made.live(), Elsewhere(world)

    async def compose(draft: Draft) -> Event:
        stored = await world.states.events_at(room, room.state_ver)
        state = {key: one.event for key, one in stored.items()}
        return elsewhere.compose(room.rules, room.room_id, [tip.event for tip in room.tips], state, draft)

    await elsewhere.sends(await compose(Draft(bob, "m.room.member", {"membership": "join"}, state_key=bob)))
    return room, elsewhere, await compose(message(bob, "hello"))


async def test_a_soft_failed_event_that_could_not_be_stored_leaves_the_room_usable(
    world: World, unreliable: Unreliable
) -> None:
    room, elsewhere, event = await message_from_elsewhere(world)
    alice = world.user("alice")
    ban = Draft(alice, "m.room.member", {"membership": "ban"}, state_key=f"@bob:{ELSEWHERE}")
    await world.send.send(room.room_id, ban)
    unreliable.failing = 1
    with pytest.raises(NotStored):
        await elsewhere.sends(event)
    stored: StoredEvent = await world.send.send(room.room_id, message(alice, "good"))
    assert (await world.rooms.get(room.room_id)).tips == (stored,)
    assert (await elsewhere.sends(event)).soft_failed
