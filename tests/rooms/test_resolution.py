"""State resolution over storage: the walks against their definitions, received events against a replay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.rooms.resolution import Page, auth_difference, events_between
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from tests.rooms.elsewhere import Elsewhere
from tests.rooms.replay import Replay, State
from tests.world import ELSEWHERE, World

# --- the walks --------------------------------------------------------------------------------


class Links:
    """An auth graph in numbers, as the walks read it."""

    def __init__(self, auth: Mapping[int, tuple[int, ...]]) -> None:
        self.auth = auth

    async def of(self, nids: Collection[int]) -> dict[int, tuple[int, ...]]:
        return {nid: self.auth[nid] for nid in nids}

    def chain(self, nids: Collection[int]) -> set[int]:
        found: set[int] = set()
        pending = list(nids)
        while pending:
            for auth in self.auth[pending.pop()]:
                if auth not in found:
                    found.add(auth)
                    pending.append(auth)
        return found


@st.composite
def auth_graphs(draw: st.DrawFn) -> Links:
    size = draw(st.integers(2, 25))
    auth: dict[int, tuple[int, ...]] = {1: ()}
    for nid in range(2, size + 1):
        cited = draw(st.sets(st.integers(1, nid - 1), min_size=1, max_size=3))
        auth[nid] = tuple(cited)
    return Links(auth)


@settings(max_examples=300, deadline=None)
@given(links=auth_graphs(), data=st.data())
async def test_the_auth_difference_is_that_of_the_definition(links: Links, data: Any) -> None:
    nids = st.sampled_from(sorted(links.auth))
    sides: list[set[int]] = data.draw(st.lists(st.sets(nids), min_size=2, max_size=4))
    in_all = sides[0].intersection(*sides)
    sides = [side - in_all for side in sides]
    unconflicted = data.draw(st.sets(nids)) - set().union(*sides)
    at_once = data.draw(st.integers(1, 4))
    told = data.draw(st.sets(nids)) & unconflicted

    class Unconflicted:
        async def newest(self, below: int) -> Page:
            left = sorted((nid for nid in unconflicted if nid < below), reverse=True)
            page = left[:at_once]
            return [nid for nid in page if nid not in told], page[-1] if len(page) == at_once else 0

        async def among(self, nids: Collection[int]) -> set[int]:
            return unconflicted.intersection(nids) - told

    cited = {nid for auth in links.auth.values() for nid in auth}
    uncited = data.draw(st.sets(nids)) - cited
    chains = [side | unconflicted | links.chain(side | unconflicted) for side in sides]
    expected = set[int]().union(*chains) - chains[0].intersection(*chains)
    assert await auth_difference(links, sides, told, Unconflicted(), uncited) == expected  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(links=auth_graphs(), data=st.data())
async def test_the_events_between_are_those_of_the_definition(links: Links, data: Any) -> None:
    ends = data.draw(st.sets(st.sampled_from(sorted(links.auth)), min_size=1))
    below = {nid for nid in links.auth if links.chain([nid]) & ends}
    assert await events_between(links, ends) == ends | (links.chain(ends) & below)  # type: ignore[arg-type]


class ManyMembers:
    """State of so many events, all of which cite the first one."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pages = 0

    async def newest(self, below: int) -> Page:
        self.pages += 1
        top = min(below, self.count) - 1
        return list(range(top, top - 10, -1)), top - 9

    async def among(self, nids: Collection[int]) -> set[int]:
        return {nid for nid in nids if nid < self.count}


@pytest.mark.parametrize("cited", [1, 700])
async def test_the_walk_does_not_look_at_state_older_than_what_differs(cited: int) -> None:
    """Not even where what differs cites a member who has been there for long."""
    links = Links({nid: (1,) if nid > 1 else () for nid in range(1, 1995)} | {1995: (cited,), 1996: (1,)})
    members = ManyMembers(1990)

    assert await auth_difference(links, [{1995}, {1996}], [], members) == {1995, 1996}  # type: ignore[arg-type]
    assert members.pages == 1


async def test_an_old_event_that_nothing_can_cite_needs_no_look_at_newer_state() -> None:
    links = Links({nid: (1,) if nid > 1 else () for nid in range(1, 2000)})
    members = ManyMembers(1990)
    old_topic, new_topic = 5, 1995

    sides = [{old_topic}, {new_topic}]
    assert await auth_difference(links, sides, [], members, {5, 1995}) == {5, 1995}  # type: ignore[arg-type]
    assert members.pages == 0


# --- received events --------------------------------------------------------------------------


class Received(Replay):
    """A replay that judges the events itself."""

    @property
    def room_id(self) -> str:
        return next(iter(self.events.values())).room_id

    def add(self, event: Event) -> tuple[bool, bool]:
        """Take in an event; whether it is rejected, and whether it is soft-failed."""
        state = self.resolved(event.prev_events)
        rejected = bool(event.prev_events) and not self.allows(event, state)
        soft_failed = bool(event.prev_events) and not rejected and not self.allows(event, self.current)
        self.events[event.event_id] = event
        self.before[event.event_id] = state
        changed = {event.key: event.event_id} if event.is_state and not rejected else {}
        self.after[event.event_id] = state | changed
        if rejected or soft_failed:
            self.hidden.add(event.event_id)
        else:
            self.tips = self.tips - self.replaced_by(event) | {event.event_id}
            self.current = self.resolved(self.tips)
        return rejected, soft_failed


NAMES = ("alice", "bob", "carol")


@dataclass(frozen=True)
class Step:
    """An event from elsewhere, on top of the events that are so far back."""

    actor: str
    what: str
    value: int
    back: frozenset[int]


steps = st.builds(
    Step,
    actor=st.sampled_from(NAMES),
    what=st.sampled_from(("message", "topic", "levels", "rules", "join", "leave", "ban")),
    value=st.integers(0, 2),
    back=st.frozensets(st.integers(0, 6), min_size=1, max_size=3),
)


def draft_of(step: Step, *, creator_has_level: bool) -> Draft:
    actor = f"@{step.actor}:{ELSEWHERE}"
    if step.what == "message":
        return Draft(actor, "m.room.message", {"body": str(step.value)})
    if step.what == "topic":
        return Draft(actor, "m.room.topic", {"topic": str(step.value)}, state_key="")
    if step.what == "levels":
        users = {f"@alice:{ELSEWHERE}": 100} if creator_has_level else {}
        users |= {f"@bob:{ELSEWHERE}": 50, f"@carol:{ELSEWHERE}": (0, 50, 60)[step.value]}
        content = {"users": users, "state_default": (0, 40, 50)[step.value], "ban": 50}
        return Draft(actor, "m.room.power_levels", content, state_key="")
    if step.what == "rules":
        rule = ("public", "invite", "public")[step.value]
        return Draft(actor, "m.room.join_rules", {"join_rule": rule}, state_key="")
    if step.what == "ban":
        banned = f"@{NAMES[step.value]}:{ELSEWHERE}"
        return Draft(actor, "m.room.member", {"membership": "ban"}, state_key=banned)
    return Draft(actor, "m.room.member", {"membership": step.what}, state_key=actor)


@pytest.fixture
async def world(sqlite_database: Database) -> AsyncIterator[World]:
    world = await World.open(sqlite_database)
    yield world
    await world.background.close()


async def everyones_room(world: World, elsewhere: Elsewhere, version: str) -> Received:
    """A room of this server in which people of another are in charge."""
    host = world.user("host")
    made = await world.public_room(host, version=version)
    room = await made.live()
    await made.set_state(host, "m.room.power_levels", powers(room, host))
    replay = Received(room.rules)
    for stored in room.recent:
        replay.add(stored.event)
        elsewhere.known[stored.id] = stored.event
    for name in NAMES:
        draft = draft_of(Step(name, "join", 0, frozenset()), creator_has_level=True)
        await receive(elsewhere, replay, draft, list(replay.tips))
    return replay


def powers(room: Room, host: str) -> dict[str, Any]:
    users = {f"@alice:{ELSEWHERE}": 100, f"@bob:{ELSEWHERE}": 50}
    if not room.rules.hash_room_ids:
        users[host] = 100
    return {"users": users, "state_default": 0, "ban": 50}


async def receive(elsewhere: Elsewhere, replay: Received, draft: Draft, prev: Sequence[str]) -> None:
    elsewhere.world.clock.advance(1)
    state = {key: replay.events[event_id] for key, event_id in replay.resolved(prev).items()}
    event = elsewhere.compose(
        replay.rules, replay.room_id, [replay.events[event_id] for event_id in prev], state, draft
    )
    stored = await elsewhere.sends(event)
    assert (stored.rejected, stored.soft_failed) == replay.add(stored.event)


async def agrees(world: World, replay: Received) -> None:
    room = await world.rooms.get(replay.room_id)

    async def names(ref: int | None) -> State:
        assert ref is not None
        return {key: stored.id for key, stored in (await world.states.events_at(room, ref)).items()}

    assert {tip.id for tip in room.tips} == replay.tips
    assert await names(room.state_ver) == replay.current
    for event_id in replay.events:
        stored = await world.events.by_id(event_id)
        assert stored is not None
        assert await names(stored.state_before) == replay.before[event_id]
        assert await names(stored.state_after) == replay.after[event_id]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from(("2", "10", "12")), story=st.lists(steps, min_size=4, max_size=12))
async def test_received_events_are_judged_and_placed_as_a_naive_replay_does(
    world: World, version: str, story: list[Step]
) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, version)
    for step in story:
        ids = list(replay.events)
        prev = [ids[-1 - back] for back in sorted(step.back)]
        draft = draft_of(step, creator_has_level=False)
        await receive(elsewhere, replay, draft, prev)
    await agrees(world, replay)
    await agrees(await world.reopen(), replay)


async def test_where_one_line_is_left_the_state_is_a_version_again(world: World) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, "10")
    rules, room_id, alice = replay.rules, replay.room_id, f"@alice:{ELSEWHERE}"
    state = {key: replay.events[event_id] for key, event_id in replay.current.items()}
    tips = [replay.events[tip] for tip in replay.tips]
    not_sent = elsewhere.compose(
        rules, room_id, tips, state, Draft(alice, "m.room.topic", {"topic": "x"}, "")
    )
    state[not_sent.key] = not_sent
    message = Draft(alice, "m.room.message", {"body": "after a gap"})
    after_gap = elsewhere.compose(rules, room_id, [*tips, not_sent], state, message)
    elsewhere.states[after_gap.event_id] = list(state.values())
    stored = await elsewhere.sends(after_gap)
    room = await world.rooms.get(room_id)
    assert [tip.id for tip in room.tips] == [after_gap.event_id]
    assert room.state["m.room.topic", ""].id == not_sent.event_id
    assert stored.state_after == room.state_ver


async def test_a_gap_does_not_let_its_origin_replace_the_state_that_is_known(world: World) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, "10")
    bob, carol = f"@bob:{ELSEWHERE}", f"@carol:{ELSEWHERE}"
    old = {key: replay.events[event_id] for key, event_id in replay.current.items()}
    ban = Draft(bob, "m.room.member", {"membership": "ban"}, state_key=carol)
    await receive(elsewhere, replay, ban, list(replay.tips))
    (tip,) = replay.tips
    never_sent = elsewhere.compose(
        replay.rules, replay.room_id, [replay.events[tip]], old, Draft(carol, "m.room.message", {})
    )
    prev = [replay.events[tip], never_sent]
    event = elsewhere.compose(
        replay.rules, replay.room_id, prev, old, Draft(carol, "m.room.message", {"body": "back"})
    )
    elsewhere.states[event.event_id] = list(old.values())
    stored = await elsewhere.sends(event)
    assert stored.rejected
    room = await world.rooms.get(replay.room_id)
    member = await world.states.member(room, carol)
    assert member is not None
    assert member.event.content["membership"] == "ban"


async def test_what_comes_late_is_not_a_tip_when_others_build_on_it(world: World) -> None:
    elsewhere = Elsewhere(world)
    replay = await everyones_room(world, elsewhere, "10")
    rules, room_id = replay.rules, replay.room_id
    state = {key: replay.events[event_id] for key, event_id in replay.current.items()}
    first = [replay.events[tip] for tip in replay.tips]
    alice = f"@alice:{ELSEWHERE}"
    late = elsewhere.compose(rules, room_id, first, state, Draft(alice, "m.room.message", {"body": "first"}))
    next_ = elsewhere.compose(rules, room_id, [late], state, Draft(alice, "m.room.message", {"body": "then"}))
    elsewhere.states[next_.event_id] = list(state.values())
    await elsewhere.sends(next_)
    await elsewhere.sends(late)
    room = await world.rooms.get(room_id)
    assert [tip.id for tip in room.tips] == [next_.event_id]
    assert {late.event_id, next_.event_id} <= {stored.id for stored in room.recent}
