"""Rooms joined with a part of their state come to be what they would be had all of it been known."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.outliers import authorise_by_auth_events
from homeserver.rooms.partial import PartialState
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Store
from homeserver.storage.database import Database, Transaction
from tests.rooms.elsewhere import Elsewhere
from tests.rooms.replay import Replay, State
from tests.world import ELSEWHERE, World

_numbers = itertools.count()

NAMES = ("alice", "bob", "carol", "dave")
MEMBER = "m.room.member"


@dataclass
class Whole(Replay):
    """A server that knows the whole state from the start, and takes events in as they come."""

    create: Event | None = None
    flags: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)

    def allowed_by_its_auth_events(self, event: Event) -> bool:
        create = self.create if self.rules.hash_room_ids else None
        try:
            authorise_by_auth_events(self.rules, event, self.events, create)
        except NotAllowed:
            return False
        return True

    def learn(self, event: Event) -> None:
        """An event that is known without being part of the timeline."""
        if event.event_id not in self.events:
            refused = event.auth_events and not self.allowed_by_its_auth_events(event)
            self.events[event.event_id] = msgspec.structs.replace(event, rejected=bool(refused))

    def take(self, event: Event, claim: State | None = None) -> None:
        """Take in an event; ``claim`` is the state before it as its server tells it over a gap."""
        known = [prev for prev in event.prev_events if prev in self.after]
        if len(known) == len(event.prev_events):
            state = self.resolved(known)
        else:
            assert claim is not None
            accepted = {key: one for key, one in claim.items() if not self.events[one].rejected}
            state = self.resolved_states([accepted, *(self.after[prev] for prev in known)])
        self.decide(event, state)

    def resolved_states(self, states: list[State]) -> State:
        self.after |= {f"side {index}": state for index, state in enumerate(states)}
        found = self.resolved([f"side {index}" for index in range(len(states))])
        for index in range(len(states)):
            del self.after[f"side {index}"]
        return found

    def decide(self, event: Event, state: State) -> None:
        event = msgspec.structs.replace(event, rejected=False)
        rejected = not self.allowed_by_its_auth_events(event) or not self.allows(event, state)
        soft_failed = not rejected and not self.allows(event, self.current)
        self.flags[event.event_id] = (rejected, soft_failed)
        self.events[event.event_id] = msgspec.structs.replace(event, rejected=rejected)
        self.before[event.event_id] = state
        changed = {event.key: event.event_id} if event.is_state and not rejected else {}
        self.after[event.event_id] = state | changed
        if not rejected and not soft_failed:
            self.tips -= self.replaced_by(event)
            if not self.tips or event.event_id not in self.wanted:
                self.tips.add(event.event_id)
            self.current = self.resolved(self.tips)
            self.wanted |= set(event.prev_events) - self.after.keys()
        else:
            self.hidden.add(event.event_id)
        self.wanted.discard(event.event_id)


@dataclass(frozen=True)
class Step:
    """An event from elsewhere on top of earlier ones, citing the state as it was further back."""

    actor: str
    what: str
    value: int
    back: frozenset[int]
    cites: int
    #: How much later than others it arrives.
    late: int


steps = st.builds(
    Step,
    actor=st.sampled_from(NAMES),
    what=st.sampled_from(("message", "topic", "levels", "rules", "join", "leave", "ban", "kick")),
    value=st.integers(0, 3),
    back=st.frozensets(st.integers(0, 4), min_size=1, max_size=2),
    cites=st.sampled_from((0, 0, 0, 1, 2, 4, 8, 12)),
    late=st.sampled_from((0, 0, 0, 2, 4)),
)


def user(name: str) -> str:
    return f"@{name}:{ELSEWHERE}"


def draft_of(step: Step, *, creator_has_level: bool) -> Draft:
    actor = user(step.actor)
    if step.what == "message":
        return Draft(actor, "m.room.message", {"body": str(step.value)})
    if step.what == "topic":
        return Draft(actor, "m.room.topic", {"topic": str(step.value)}, state_key="")
    if step.what == "levels":
        users = {user("alice"): 100} if creator_has_level else {}
        users |= {user("bob"): 50, user("carol"): (0, 50, 60, 40)[step.value]}
        content = {"users": users, "state_default": (0, 40, 50, 0)[step.value], "ban": 50, "kick": 50}
        return Draft(actor, "m.room.power_levels", content, state_key="")
    if step.what == "rules":
        rule = ("public", "invite", "public", "public")[step.value]
        return Draft(actor, "m.room.join_rules", {"join_rule": rule}, state_key="")
    if step.what in {"ban", "kick"}:
        membership = "ban" if step.what == "ban" else "leave"
        return Draft(actor, MEMBER, {"membership": membership}, state_key=user(NAMES[step.value]))
    return Draft(actor, MEMBER, {"membership": step.what}, state_key=actor)


class There:
    """The room at the server that has it: what it knows is the truth."""

    def __init__(self, elsewhere: Elsewhere, version: str) -> None:
        self.elsewhere, self.world = elsewhere, elsewhere.world
        self.truth = Whole(ROOM_VERSIONS[version])
        #: What the next events may build on, and what they may cite the state after.
        self.ids: list[str] = []
        self.all_ids: list[str] = []
        creator = {} if self.truth.rules.implicit_room_creator else {"creator": user("alice")}
        creator["room_version"] = version
        room_id = None if self.truth.rules.hash_room_ids else f"!room{next(_numbers)}:{ELSEWHERE}"
        create = elsewhere.compose(
            self.truth.rules, room_id, [], {}, Draft(user("alice"), "m.room.create", creator, state_key="")
        )
        self.truth.create = create
        self.truth.events[create.event_id] = create
        self.truth.before[create.event_id] = {}
        self.truth.after[create.event_id] = self.truth.current = {create.key: create.event_id}
        self.truth.tips = {create.event_id}
        self.made(create)
        self.room_id = create.room_id
        for step in (
            Step("alice", "join", 0, frozenset({0}), 0, 0),
            Step("alice", "levels", 0, frozenset({0}), 0, 0),
            Step("alice", "rules", 0, frozenset({0}), 0, 0),
            *(Step(name, "join", 0, frozenset({0}), 0, 0) for name in NAMES[1:]),
        ):
            self.does(step)

    def does(self, step: Step) -> Event:
        creator_has_level = not self.truth.rules.hash_room_ids
        draft = draft_of(step, creator_has_level=creator_has_level)
        prev = [self.ids[max(0, len(self.ids) - 1 - back)] for back in sorted(step.back)]
        return self.sends(draft, list(dict.fromkeys(prev)), step.cites)

    def sends(self, draft: Draft, prev: Sequence[str], cites: int = 0) -> Event:
        self.world.clock.advance(1)
        truth = self.truth
        state = truth.resolved(prev)
        if cites:  # memberships as they were once
            old = truth.after[self.all_ids[max(0, len(self.all_ids) - 1 - cites)]]
            state |= {key: one for key, one in old.items() if key[0] == MEMBER}
        cited = {key: truth.events[one] for key, one in state.items()}
        event = self.elsewhere.compose(
            truth.rules, self.room_id, [truth.events[one] for one in prev], cited, draft
        )
        if event.event_id not in truth.events:
            truth.take(event)
            self.made(event)
        state_before = truth.before[event.event_id].values()
        self.elsewhere.states[event.event_id] = [truth.events[one] for one in state_before]
        return event

    def made(self, event: Event) -> None:
        self.ids.append(event.event_id)
        self.all_ids.append(event.event_id)


@pytest.fixture
async def world(sqlite_database: Database) -> AsyncIterator[World]:
    world = await World.open(sqlite_database)
    yield world
    await world.background.close()


async def joins_partially(there: There, host: str) -> Whole:
    """Have a local user join with a part of the state; what a server that knows all of it has then."""
    truth, elsewhere, world = there.truth, there.elsewhere, there.world
    prev = sorted(truth.tips)
    join = there.sends(Draft(host, MEMBER, {"membership": "join"}, state_key=host), prev)
    base = truth.before[join.event_id]
    whole = Whole(truth.rules, create=truth.create)
    for event_id in there.all_ids[:-1]:
        whole.learn(truth.events[event_id])
    whole.current = base
    whole.decide(join, base)
    whole.wanted = set(prev)
    part = [truth.events[one] for key, one in base.items() if key[0] != MEMBER]
    room = world.rooms.add(world.rooms.new(there.room_id, truth.rules))
    async with room.lock:
        written = await elsewhere.adoption.adopt(
            room, join, part, elsewhere.auth_chain([*part, join]), PartialState(ELSEWHERE, (ELSEWHERE,))
        )
    await written
    return whole


async def arrives(there: There, whole: Whole, event: Event) -> None:
    """An event reaches the server under test, and the one that knew the whole state."""
    for auth in there.elsewhere.auth_chain([event]):
        whole.learn(auth)
    claim = {one.key: one.event_id for one in there.elsewhere.states[event.event_id]}
    for one in there.elsewhere.states[event.event_id]:
        if set(event.prev_events) - whole.after.keys():
            for auth in there.elsewhere.auth_chain([one]):
                whole.learn(auth)
            whole.learn(one)
    whole.take(event, claim)
    await there.elsewhere.sends(event)


async def completes(there: There) -> Room:
    there.elsewhere.completion.begin(there.room_id)
    return await there.world.rooms.whole(await there.world.rooms.get(there.room_id))


async def agrees(world: World, whole: Whole, room_id: str) -> None:
    room = await world.rooms.get(room_id)
    assert room.partial is None

    async def names(ref: int | None) -> State:
        assert ref is not None
        return {key: stored.id for key, stored in (await world.states.events_at(room, ref)).items()}

    for event_id, flags in whole.flags.items():
        stored = await world.events.by_id(event_id)
        assert stored is not None
        assert (stored.rejected, stored.soft_failed) == flags, stored.event
        assert (stored.pos is None) == stored.hidden
        assert await names(stored.state_before) == whole.before[event_id]
        assert await names(stored.state_after) == whole.after[event_id]
    assert {tip.id for tip in room.tips} == whole.tips
    assert await names(room.state_ver) == whole.current
    others = {key: event_id for key, event_id in whole.current.items() if key[0] != MEMBER}
    assert {key: stored.id for key, stored in room.state.items()} == others
    joined = [
        key[1]
        for key, event_id in whole.current.items()
        if key[0] == MEMBER and whole.events[event_id].content["membership"] == "join"
    ]
    assert room.joined_members == sum(room.servers.values()) == len(joined)
    listed = await room_storage.members(world.db.read, room.nid, "join", 100)
    assert sorted(user_id for user_id, _ in listed) == sorted(joined)
    host = world.user("host")
    local = await room_storage.local_membership(world.db.read, host, room.nid)
    assert local is not None
    assert (local.membership == "join") == (host in joined)
    for name in NAMES:
        member = await world.states.member(room, user(name))
        assert (member.id if member else None) == whole.current.get((MEMBER, user(name)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from(("2", "10", "12")),
    before=st.lists(steps, max_size=8),
    story=st.lists(steps, min_size=2, max_size=10),
    completed_after=st.integers(0, 10),
)
async def test_in_the_end_all_is_as_if_the_whole_state_had_been_known(
    world: World, version: str, before: list[Step], story: list[Step], completed_after: int
) -> None:
    there = There(Elsewhere(world), version)
    for step in before:
        there.does(step)
    try:
        whole = await joins_partially(there, world.user("host"))
    except NotAllowed:  # the rules for joining changed meanwhile
        return
    there.ids = there.ids[-1:]
    sent = [(index + step.late, index, there.does(step)) for index, step in enumerate(story)]
    for count, (_, _, event) in enumerate(sorted(sent, key=lambda one: one[:2])):
        if count == completed_after:
            await completes(there)
        if event.event_id not in whole.flags:
            await arrives(there, whole, event)
    await completes(there)
    await agrees(world, whole, there.room_id)
    again = await world.reopen()
    await agrees(again, whole, there.room_id)


class Deceived:
    """A server that joined partially and took an event of somebody who had left for good.

    Dave may do anything, and has left; what he sends cites his old membership.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.host = world.user("host")
        self.there = There(Elsewhere(world), "10")
        powers = {"users": {user("alice"): 100, user("dave"): 100, user("bob"): 50}, "state_default": 50}
        self.sent(Draft(user("alice"), "m.room.power_levels", powers, state_key=""))
        self.sent(Draft(user("dave"), MEMBER, {"membership": "leave"}, state_key=user("dave")))
        self.whole: Whole

    def sent(self, draft: Draft, cites: int = 0) -> Event:
        return self.there.sends(draft, [self.there.ids[-1]], cites)

    async def join(self) -> None:
        self.whole = await joins_partially(self.there, self.host)

    async def arrives(self, draft: Draft, cites: int = 0) -> Event:
        event = self.sent(draft, cites)
        await arrives(self.there, self.whole, event)
        return event

    async def hidden(self, event: Event) -> bool:
        stored = await self.world.events.by_id(event.event_id)
        assert stored is not None
        return stored.hidden


async def test_what_was_accepted_by_mistake_is_rejected_in_the_end(world: World) -> None:
    case = Deceived(world)
    await case.join()
    topic = await case.arrives(Draft(user("dave"), "m.room.topic", {"topic": "!"}, state_key=""), cites=3)
    room = await world.rooms.get(case.there.room_id)
    assert not await case.hidden(topic)
    assert room.state["m.room.topic", ""].id == topic.event_id
    said = await case.arrives(Draft(user("bob"), "m.room.message", {"body": "hm"}))
    before = room.last_pos

    room = await completes(case.there)

    assert await case.hidden(topic)
    assert ("m.room.topic", "") not in room.state
    assert [one.id for one in room.recent][-1:] == [said.event_id]
    assert topic.event_id not in [one.id for one in room.recent]
    assert room.state_ver > before, "who was told of the topic is told that there is none"
    await agrees(world, case.whole, room.room_id)
    await world.send.send(room.room_id, Draft(case.host, "m.room.message", {"body": "on we go"}))


async def test_what_was_rejected_by_mistake_is_shown_in_the_end(world: World) -> None:
    case = Deceived(world)
    await case.join()
    kick = await case.arrives(Draft(user("dave"), MEMBER, {"membership": "leave"}, user("bob")), cites=3)
    topic = await case.arrives(Draft(user("bob"), "m.room.topic", {"topic": "tea"}, state_key=""))
    hello = await case.arrives(Draft(user("bob"), "m.room.message", {"body": "hello"}))
    said = await case.arrives(Draft(user("alice"), "m.room.message", {"body": "hm"}))
    assert [await case.hidden(event) for event in (kick, topic, hello, said)] == [False, True, True, False]
    announced = len(world.announced)

    room = await completes(case.there)

    assert [await case.hidden(event) for event in (kick, topic, hello, said)] == [True, False, False, False]
    assert room.state["m.room.topic", ""].id == topic.event_id
    member = await world.states.member(room, user("bob"))
    assert member is not None
    assert member.event.content["membership"] == "join"
    (news,) = world.announced[announced:]
    assert [one.id for one in news.events] == [topic.event_id, hello.event_id]
    assert [one.id for one in room.recent][-3:] == [said.event_id, topic.event_id, hello.event_id]
    await agrees(world, case.whole, room.room_id)
    again = await world.reopen()
    await agrees(again, case.whole, room.room_id)
    reopened = await again.rooms.get(room.room_id)
    assert [one.id for one in reopened.recent] == [one.id for one in room.recent]


async def test_a_join_that_the_whole_state_forbids_comes_to_nothing(world: World) -> None:
    case = Deceived(world)
    ban = Draft(user("alice"), MEMBER, {"membership": "ban"}, state_key=case.host)
    case.sent(ban)
    there, truth = case.there, case.there.truth
    unbanned = {key: one for key, one in truth.current.items() if key != (MEMBER, case.host)}
    truth.after[there.ids[-1]] = unbanned
    join = there.sends(Draft(case.host, MEMBER, {"membership": "join"}, case.host), [there.ids[-1]])
    there.elsewhere.states[there.ids[-2]] = [truth.events[one] for one in truth.current.values()]
    part = [truth.events[one] for key, one in unbanned.items() if key[0] != MEMBER]
    room = world.rooms.add(world.rooms.new(there.room_id, truth.rules))
    incomplete = PartialState(ELSEWHERE, (ELSEWHERE,))
    async with room.lock:
        written = await there.elsewhere.adoption.adopt(
            room, join, part, there.elsewhere.auth_chain([*part, join]), incomplete
        )
    await written
    assert world.rooms.is_in(room)

    room = await completes(there)

    assert await case.hidden(join)
    assert not world.rooms.is_in(room)
    local = await room_storage.local_membership(world.db.read, case.host, room.nid)
    assert local is not None
    assert local.membership == "ban"


async def test_a_restart_in_the_middle_changes_nothing(database: Database) -> None:
    world = await World.open(database)
    case = Deceived(world)
    await case.join()
    topic = await case.arrives(Draft(user("dave"), "m.room.topic", {"topic": "!"}, state_key=""), cites=3)
    kick = await case.arrives(Draft(user("dave"), MEMBER, {"membership": "leave"}, user("bob")), cites=4)
    await case.arrives(Draft(user("bob"), "m.room.message", {"body": "hm"}))
    await world.background.close()

    case.world = world = await world.reopen()
    elsewhere = Elsewhere(world)
    elsewhere.known, elsewhere.states = case.there.elsewhere.known, case.there.elsewhere.states
    case.there.elsewhere, case.there.world = elsewhere, world
    room = await world.rooms.get(case.there.room_id)
    assert room.partial is not None
    await case.arrives(Draft(user("alice"), "m.room.message", {"body": "after"}))
    await elsewhere.completion.start()
    room = await world.rooms.whole(await world.rooms.get(case.there.room_id))

    assert await case.hidden(topic)
    assert await case.hidden(kick)
    await agrees(world, case.whole, room.room_id)
    await agrees(await world.reopen(), case.whole, room.room_id)
    await world.background.close()


async def test_a_write_that_fails_leaves_a_room_that_is_tried_again(world: World) -> None:
    case = Deceived(world)
    await case.join()
    topic = await case.arrives(Draft(user("dave"), "m.room.topic", {"topic": "!"}, state_key=""), cites=3)
    failed, again = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        failed.set()
        await again.wait()

    completion = case.there.elsewhere.completion
    completion._pause = pause
    unbroken, fails = world.db.write, [True]

    def write(work: Any) -> Any:
        async def broken(tx: Transaction) -> None:
            await work(tx)
            raise OSError("the disk is full")

        is_switch = isinstance(work, Store) and work.append.clear_state
        return unbroken(broken if is_switch and fails else work)

    world.db.write = write  # type: ignore[method-assign]
    completion.begin(case.there.room_id)
    await failed.wait()
    room = await world.rooms.get(case.there.room_id)
    assert room.partial is not None
    assert not await case.hidden(topic)
    said = await case.arrives(Draft(user("alice"), "m.room.message", {"body": "still here"}))
    fails.clear()
    again.set()

    room = await world.rooms.whole(await world.rooms.get(case.there.room_id))
    assert await case.hidden(topic)
    assert not await case.hidden(said)
    await agrees(world, case.whole, room.room_id)
