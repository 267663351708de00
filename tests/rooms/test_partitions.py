"""Partitions that heal: in whatever order their events come, the states are those of the definitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.rooms.inbound import Dropped
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from tests.rooms.elsewhere import Elsewhere
from tests.rooms.replay import Replay
from tests.rooms.test_resolution import NAMES, Received, Step, draft_of, everyones_room
from tests.world import ELSEWHERE, World

VERSIONS = ("2", "10", "11", "12")

moves = st.builds(
    Step,
    actor=st.sampled_from(NAMES),
    what=st.sampled_from(("topic", "levels", "rules", "ban", "ban", "levels", "leave", "join")),
    value=st.integers(0, 2),
    back=st.just(frozenset()),
)
sides = st.lists(moves, min_size=1, max_size=5)


@pytest.fixture
async def world(sqlite_database: Database) -> AsyncIterator[World]:
    world = await World.open(sqlite_database)
    yield world
    await world.background.close()


class Partition:
    """A room whose servers do not hear of each other for a while."""

    def __init__(self, elsewhere: Elsewhere, replay: Received) -> None:
        self.elsewhere, self.replay = elsewhere, replay
        self.events: list[Event] = []

    def says(self, draft: Draft, on: list[str]) -> str:
        """Add an event to the graph, which the server under test does not know of yet."""
        self.elsewhere.world.clock.advance(1)
        replay = self.replay
        state = {key: replay.events[event_id] for key, event_id in replay.resolved(on).items()}
        prev = [replay.events[event_id] for event_id in on]
        event = self.elsewhere.compose(replay.rules, replay.room_id, prev, state, draft)
        rejected, _ = replay.add(event)
        if rejected:  # an honest server does not send it
            del replay.events[event.event_id]
            return on[0]
        self.events.append(event)
        return event.event_id


def one_side(partition: Partition, base: list[str], story: list[Step]) -> str:
    last = list(base)
    for step in story:
        last = [partition.says(draft_of(step, creator_has_level=False), last)]
    return last[0]


def in_some_order(events: list[Event], choose: st.DataObject) -> list[Event]:
    """The events so that none comes before what it builds on, else in any order."""
    left, ordered, ids = list(events), [], {event.event_id for event in events}
    while left:
        free = [event for event in left if not ids.intersection(event.prev_events)]
        event = choose.draw(st.sampled_from(free))
        ordered.append(event)
        left.remove(event)
        ids.discard(event.event_id)
    return ordered


async def states_agree(world: World, partition: Partition) -> None:
    room = await world.rooms.get(partition.replay.room_id)
    for event in partition.events:
        stored = await world.events.by_id(event.event_id)
        assert stored is not None
        assert not stored.rejected
        at = await world.states.events_at(room, stored.state_before or 0)
        assert {key: one.id for key, one in at.items()} == partition.replay.before[event.event_id]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from(VERSIONS), ours=sides, theirs=sides, choose=st.data())
async def test_both_sides_of_a_partition_meet_in_one_state(
    world: World, version: str, ours: list[Step], theirs: list[Step], choose: Any
) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, version)
    partition = Partition(elsewhere, replay)
    base = sorted(replay.tips)
    ends = sorted({one_side(partition, base, ours), one_side(partition, base, theirs)})
    for name in NAMES:
        partition.says(Draft(f"@{name}:{ELSEWHERE}", "m.room.message", {}), ends)
    for event in in_some_order(partition.events, choose):
        await elsewhere.sends(event)
    await states_agree(world, partition)
    await current_state_agrees(world, replay)
    again = await world.reopen()
    await states_agree(again, partition)
    await current_state_agrees(again, replay)
    await again.background.close()


async def current_state_agrees(world: World, replay: Replay) -> None:
    """The room's state is the resolution of those of its extremities."""
    room = await world.rooms.get(replay.room_id)
    state = await world.states.events_at(room, room.state_ver)
    tips = [tip.id for tip in room.tips]
    assert {key: one.id for key, one in state.items()} == replay.resolved(tips)


async def test_whoever_hears_of_the_ban_first_comes_to_the_same_state(world: World) -> None:
    """A ban on one side and what the banned decides on the other, delivered in both orders."""
    found = []
    for backwards in (False, True):
        elsewhere = Elsewhere(world)
        replay = await everyones_room(world, elsewhere, "12")
        partition = Partition(elsewhere, replay)
        base = sorted(replay.tips)
        ban = Step("alice", "ban", 1, frozenset())
        closes = Step("bob", "rules", 1, frozenset())
        ends = [one_side(partition, base, [ban]), one_side(partition, base, [closes])]
        partition.says(Draft(f"@alice:{ELSEWHERE}", "m.room.message", {}), ends)
        sent = partition.events[:2]
        for event in (*(reversed(sent) if backwards else sent), *partition.events[2:]):
            await elsewhere.sends(event)
        room = await world.rooms.get(replay.room_id)
        state = await world.states.events_at(room, room.state_ver)
        found.append({key: one.event.content for key, one in state.items() if key[0] != "m.room.create"})
    assert found[0] == found[1]
    assert found[0]["m.room.member", f"@bob:{ELSEWHERE}"]["membership"] == "ban"
    assert found[0]["m.room.join_rules", ""]["join_rule"] == "public"


async def test_a_branch_whose_beginning_is_missing_waits_for_it(world: World) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, "11")
    partition = Partition(elsewhere, replay)
    story = [Step("alice", "topic", number, frozenset()) for number in range(3)]
    one_side(partition, sorted(replay.tips), story)
    first, second, third = partition.events
    for early in (third, second):
        with pytest.raises(Dropped):
            await elsewhere.sends(early)
    for event in (first, second, third):
        await elsewhere.sends(event)
    await states_agree(world, partition)
