"""Rooms with many forward extremities: what they cost, what this server's events build on, how they merge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.protocol.events import Event
from homeserver.protocol.state_res import resolve
from homeserver.rooms import state_store
from homeserver.rooms.compose import MAX_PREV_EVENTS
from homeserver.rooms.dummy_events import FEW, PATIENCE_SECONDS, PAUSE_SECONDS
from homeserver.rooms.extremities import MAX_STATES
from homeserver.rooms.recent_changes import MOST
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from homeserver.storage.events import DUMMY, StoredEvent
from tests.rooms.counting import Counting
from tests.rooms.elsewhere import Elsewhere
from tests.sync.server import SyncServer
from tests.world import ELSEWHERE, World, WorldRoom

BOB = f"@bob:{ELSEWHERE}"
#: The most that a room whose forks this server may merge has for longer than a moment.
MANY = 2 * MAX_PREV_EVENTS


class Forked:
    """A room of alice's in which bob of elsewhere branches off one event as often as he likes."""

    def __init__(self, world: World, made: WorldRoom, room: Room, elsewhere: Elsewhere) -> None:
        self.world, self.made, self.room, self.elsewhere = world, made, room, elsewhere
        self.forks: list[StoredEvent] = []

    @classmethod
    async def open(cls, world: World, **fields: Any) -> Forked:
        levels = {"events": {"m.room.topic": 0, "m.room.name": 0}, **fields}
        # In later versions no level keeps the creator from sending.
        made = await world.public_room(world.user("alice"), version="11", power_level_content_override=levels)
        forked = cls(world, made, await made.live(), Elsewhere(world))
        await forked.says(Draft(BOB, "m.room.member", {"membership": "join"}, state_key=BOB))
        forked.base = await forked.known()
        return forked

    async def known(self) -> tuple[list[Event], dict[Any, Event]]:
        stored = await self.world.states.events_at(self.room, self.room.state_ver)
        for one in stored.values():
            self.elsewhere.known[one.id] = one.event
        return [tip.event for tip in self.room.tips], {key: one.event for key, one in stored.items()}

    async def says(
        self, draft: Draft, *, on: tuple[list[Event], dict[Any, Event]] | None = None
    ) -> StoredEvent:
        self.world.clock.advance(0.01)
        prev, state = on or await self.known()
        event = self.elsewhere.compose(self.room.rules, self.room.room_id, prev, state, draft)
        return await self.elsewhere.sends(event)

    async def branch(self, count: int, type_: str = "m.room.topic") -> None:
        """Events of bob's on the same event, none of which knows the others."""
        for number in range(count):
            draft = Draft(BOB, type_, {"topic": f"{number}"}, None if type_ == "m.room.message" else "")
            self.forks.append(await self.says(draft, on=self.base))

    async def settled(self) -> None:
        """Nothing is under way in the background."""
        while self.world.background._tasks:
            for task in list(self.world.background._tasks):
                await task


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = await World.open(database)
    yield world
    await world.background.close()


async def dummies(forked: Forked) -> list[StoredEvent]:
    return [stored for stored in forked.room.recent if stored.event.type == DUMMY]


async def test_a_few_forks_are_left_to_merge_by_themselves(world: World) -> None:
    forked = await Forked.open(world)
    await forked.branch(FEW)
    world.clock.advance(2 * PATIENCE_SECONDS)
    await forked.branch(0)
    await forked.settled()
    assert len(forked.room.tips) == FEW
    assert not await dummies(forked)


async def test_more_than_a_few_merge_when_they_do_not_go_away(world: World) -> None:
    forked = await Forked.open(world)
    await forked.branch(FEW + 2)
    await forked.settled()
    assert not await dummies(forked)
    world.clock.advance(PATIENCE_SECONDS)
    await forked.branch(1)
    await forked.settled()
    (dummy,) = await dummies(forked)
    assert dummy.event.sender == world.user("alice")
    assert [tip.id for tip in forked.room.tips] == [dummy.id]


async def test_what_one_message_merges_soon_needs_no_dummy(world: World) -> None:
    forked = await Forked.open(world)
    await forked.branch(FEW + 2)
    await forked.made.send(world.user("alice"), "all of you")
    world.clock.advance(PATIENCE_SECONDS)
    await forked.branch(1)
    await forked.settled()
    assert not await dummies(forked)


async def test_forks_without_end_stay_bounded_and_cost_few_events(world: World) -> None:
    forked = await Forked.open(world)
    widest = 0
    for _ in range(10):
        await forked.branch(15, "m.room.message")
        await forked.settled()
        widest = max(widest, len(forked.room.tips))
        world.clock.advance(PAUSE_SECONDS)
    assert widest <= MANY
    assert 0 < len(await dummies(forked)) <= 150 // (MAX_PREV_EVENTS - FEW)


async def test_a_room_in_which_nobody_here_may_send_is_left_alone(world: World) -> None:
    forked = await Forked.open(world, events={DUMMY: 101})
    await forked.branch(MAX_PREV_EVENTS + 5, "m.room.message")
    await forked.settled()
    assert len(forked.room.tips) > MAX_PREV_EVENTS
    assert not await dummies(forked)


async def test_the_state_before_an_event_of_ours_is_that_of_the_events_it_names(world: World) -> None:
    forked = await Forked.open(world, events={DUMMY: 101, "m.room.topic": 0})
    await forked.branch(MAX_STATES + 10)
    room, states = forked.room, world.states
    assert len(room.tips) == MAX_STATES + 10
    said = await forked.made.send(world.user("alice"), "which topic is it?")
    assert len(said.event.prev_events) == MAX_PREV_EVENTS
    named = await world.events.by_ids(said.event.prev_events)
    sets, events = [], dict(forked.elsewhere.known)
    for stored in named.values():
        at = await states.events_at(room, stored.state_after or 0)
        sets.append({key: one.id for key, one in at.items()})
        events |= {one.id: one.event for one in at.values()}
    before = {key: one.id for key, one in (await states.events_at(room, said.state_before or 0)).items()}
    assert before == resolve(room.rules, sets, events)
    assert [tip.id for tip in room.tips][-1] == said.id
    assert len(room.tips) == 11


async def test_the_extremities_named_have_every_state_there_is(world: World) -> None:
    forked = await Forked.open(world, events={DUMMY: 101, "m.room.topic": 0})
    await forked.branch(MAX_PREV_EVENTS + 5, "m.room.message")
    await forked.branch(3)
    said = await forked.made.send(world.user("alice"), "hello")
    assert {stored.id for stored in forked.forks[-3:]} <= set(said.event.prev_events)
    assert said.state_before == (await world.events.by_ids([said.id]))[said.id].state_after


async def test_each_of_very_many_forks_costs_as_few_reads_as_the_one_before(
    sqlite_database: Database,
) -> None:
    counting = Counting(sqlite_database)
    world = await World.open(counting)
    forked = await Forked.open(world, events={DUMMY: 101, "m.room.topic": 0})
    await forked.branch(2 * MAX_STATES + MOST)  # the changes of few are all in memory
    before = counting.reads
    await forked.branch(5)
    few = counting.reads - before
    await forked.branch(3 * MAX_STATES)
    before = counting.reads
    await forked.branch(5)
    assert counting.reads - before <= few
    await world.background.close()


async def test_a_fork_behind_a_soft_failed_event_ends_with_what_is_built_on_that(world: World) -> None:
    forked = await Forked.open(world)
    alice = world.user("alice")
    prev, state = await forked.known()
    carol = f"@carol:{ELSEWHERE}"
    joined = await forked.says(Draft(carol, "m.room.member", {"membership": "join"}, state_key=carol))
    with_carol = await forked.known()
    other = await forked.says(Draft(BOB, "m.room.message", {"body": "beside"}), on=(prev, state))
    assert {tip.id for tip in forked.room.tips} == {joined.id, other.id}
    await world.membership.ban(alice, forked.room.room_id, carol)
    (banned,) = forked.room.tips
    late = await forked.says(Draft(carol, "m.room.message", {"body": "x"}), on=with_carol)
    assert late.soft_failed
    tip = await forked.says(Draft(BOB, "m.room.message", {"body": "fork"}), on=with_carol)
    assert {one.id for one in forked.room.tips} == {banned.id, tip.id}
    known = forked.elsewhere.known
    known[tip.id] = tip.event
    again = await forked.says(Draft(carol, "m.room.message", {"body": "y"}), on=([tip.event], with_carol[1]))
    assert again.soft_failed
    on_it = await forked.says(Draft(BOB, "m.room.message", {"body": "z"}), on=([again.event], with_carol[1]))
    assert {one.id for one in forked.room.tips} == {banned.id, on_it.id}


async def test_an_overlay_on_its_way_to_the_disk_is_not_made_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    made = await world.public_room(alice)
    base = await made.send(alice, "base")
    await made.send(alice, "tip")
    monkeypatch.setattr(state_store, "_REMEMBERED_OVERLAYS", 1)
    topic = await made.compose_after([base], Draft(alice, "m.room.topic", {"topic": "a"}, state_key=""))
    async with world.rooms.lock(made.room_id) as room:
        written = await world.timeline.stage(room, [topic])
        (overlay,) = [tip for tip in room.tips if tip.id == topic.event.event_id]
        same = {overlay.key_nid or 0: overlay.nid}
        for other in range(3):
            await world.states.overlay_on(room, overlay.state_before or 0, {1: other})
        again = await world.states.overlay_on(room, overlay.state_before or 0, same)
        assert -again.nid == overlay.state_after
    await written


async def test_people_are_not_shown_what_merges_forks(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await room.send(alice.user_id, "hello")
    await bob.sync()
    dummy = await room.send_event(alice.user_id, DUMMY, {})
    reply = await bob.sync()
    assert room.room_id not in reply.get("rooms", {}).get("join", {})
    after = await room.send(alice.user_id, "again")
    section = (await bob.sync())["rooms"]["join"][room.room_id]
    assert [event["event_id"] for event in section["timeline"]["events"]] == [after.id]
    assert section["unread_notifications"]["notification_count"] == 2
    live = await room.live()
    assert not await server.visibility.may_see(live, bob.user_id, dummy)
    await server.world.background.close()
