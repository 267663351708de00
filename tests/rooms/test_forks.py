"""Rooms whose graph forks: the state kept for every event is the one the definitions give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from homeserver.storage.events import SOFT_FAILED, StoredEvent
from tests.rooms.replay import Replay, State
from tests.world import World, WorldRoom


class Forks(Replay):
    """A replay of events whose fate is known."""

    def add(self, stored: StoredEvent) -> None:
        event = stored.event
        self.events[event.event_id] = event
        state = self.resolved(event.prev_events)
        self.before[event.event_id] = state
        self.after[event.event_id] = state | ({event.key: event.event_id} if event.is_state else {})
        if stored.hidden:
            self.hidden.add(event.event_id)
        else:
            self.tips = self.tips - self.replaced_by(event) | {event.event_id}
            self.current = self.resolved(self.tips)


@dataclass(frozen=True)
class Step:
    """One thing that happens: on top of everything, or on top of an earlier event."""

    actor: str
    what: str
    value: int
    #: How far back the event it builds on is; 0 builds on the newest tips.
    back: int
    soft_failed: bool


NAMES = ("alice", "bob", "carol")

steps = st.builds(
    Step,
    actor=st.sampled_from(NAMES),
    what=st.sampled_from(("message", "topic", "levels", "rules", "join", "leave", "ban")),
    value=st.integers(0, 2),
    back=st.sampled_from((0, 0, 1, 2, 3, 5, 8)),
    soft_failed=st.sampled_from((False, False, False, False, True)),
)


def draft_of(world: World, step: Step, hash_room_ids: bool) -> Draft:
    actor, other = world.user(step.actor), world.user(NAMES[step.value])
    if step.what == "message":
        return Draft(actor, "m.room.message", {"body": str(step.value)})
    if step.what == "topic":
        return Draft(actor, "m.room.topic", {"topic": str(step.value)}, state_key="")
    if step.what == "levels":
        users = {} if hash_room_ids else {world.user("alice"): 100}
        users[world.user("bob")] = 50
        users[world.user("carol")] = (0, 50, 60)[step.value]
        content = {"users": users, "state_default": (0, 40, 50)[step.value], "ban": 50}
        return Draft(actor, "m.room.power_levels", content, state_key="")
    if step.what == "rules":
        rule = ("public", "invite", "public")[step.value]
        return Draft(actor, "m.room.join_rules", {"join_rule": rule}, state_key="")
    if step.what == "ban":
        return Draft(actor, "m.room.member", {"membership": "ban"}, state_key=other)
    return Draft(actor, "m.room.member", {"membership": step.what}, state_key=actor)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = await World.open(database)
    yield world
    await world.background.close()


async def play(world: World, room: WorldRoom, replay: Forks, step: Step) -> None:
    """Do one step in both; one that the rules refuse is left out."""
    live = await room.live()
    draft = draft_of(world, step, live.rules.hash_room_ids)
    world.clock.advance(1)
    try:
        if step.back == 0:
            stored = await world.send.send(room.room_id, draft)
        else:
            earlier = list(replay.events)
            parent = await world.events.by_id(earlier[max(0, len(earlier) - 1 - step.back)])
            assert parent is not None
            flags = SOFT_FAILED if step.soft_failed else 0
            stored = await room.append_after([parent], draft, flags=flags)
    except (NotAllowed, MatrixError):
        return
    if stored.id not in replay.events:
        replay.add(stored)


async def agrees(world: World, room: WorldRoom, replay: Forks) -> None:
    live = await world.rooms.get(room.room_id)

    async def names(ref: int | None) -> State:
        assert ref is not None
        return {key: stored.id for key, stored in (await world.states.events_at(live, ref)).items()}

    assert {tip.id for tip in live.tips} == replay.tips
    assert await names(live.state_ver) == replay.current
    for event_id in replay.events:
        stored = await world.events.by_id(event_id)
        assert stored is not None
        assert await names(stored.state_before) == replay.before[event_id]
        assert await names(stored.state_after) == replay.after[event_id]
    others = {key: event_id for key, event_id in replay.current.items() if key[0] != "m.room.member"}
    assert {key: stored.id for key, stored in live.state.items()} == others
    joined = [
        key[1]
        for key, event_id in replay.current.items()
        if key[0] == "m.room.member" and replay.events[event_id].content["membership"] == "join"
    ]
    assert live.joined_members == sum(live.servers.values()) == len(joined)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from(("1", "2", "10", "12")), story=st.lists(steps, min_size=4, max_size=14))
async def test_the_state_at_every_event_is_what_a_naive_replay_gives(
    world: World, version: str, story: list[Step]
) -> None:
    room = await world.public_room(
        world.user("alice"), version=version, power_level_content_override={"state_default": 0}
    )
    replay = Forks((await room.live()).rules)
    for stored in await room.timeline():
        replay.add(stored)
    for step in (Step("bob", "join", 0, 0, False), Step("carol", "join", 0, 0, False), *story):
        await play(world, room, replay, step)
    await agrees(world, room, replay)
    again = await world.reopen()
    await agrees(again, WorldRoom(again, room.room_id), replay)
