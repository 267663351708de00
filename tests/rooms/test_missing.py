"""Events that come before what they build on: whom is asked for it, and what is enough to go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from homeserver.errors import RemoteError
from homeserver.protocol.events import Event, StateKey
from homeserver.rooms.backfill import Backfill, reached
from homeserver.rooms.inbound import Dropped
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.rooms.elsewhere import Elsewhere
from tests.rooms.test_outliers import BOB, CAROL, Shared, join, message
from tests.world import ELSEWHERE, World, unreachable

THIRD = "third.example"
EVE = f"@eve:{THIRD}"


class Elsewheres(Elsewhere):
    """Several servers that know the same, some of which do not answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.down: set[str] = set()
        #: Events that nobody gives any more.
        self.lost: set[str] = set()
        #: What ``/get_missing_events`` answers, by the first of the latest events.
        self.pages: dict[str, list[Event]] = {}
        self.history: list[Event] = []
        self.asked: list[tuple[str, str]] = []

    def _ask(self, server: str, what: str) -> None:
        self.asked.append((server, what))
        if server in self.down:
            raise unreachable(server)

    async def missing_events(
        self,
        server: str,
        room_id: str,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        *,
        min_depth: int = 0,
    ) -> list[dict[str, Any]]:
        self._ask(server, "missing_events")
        return [event.pdu for event in self.pages.get(latest[0], [])]

    async def state_ids(self, server: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        self._ask(server, "state_ids")
        return await super().state_ids(server, room_id, event_id)

    async def state(self, server: str, room_id: str, event_id: str) -> Any:
        self._ask(server, "state")
        return await super().state(server, room_id, event_id)

    async def event(self, server: str, event_id: str) -> dict[str, Any]:
        self._ask(server, "event")
        if event_id in self.lost:
            raise unreachable(server)
        return await super().event(server, event_id)

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        self._ask(server, "event_auth")
        return await super().event_auth(server, room_id, event_id)

    async def backfill(self, server: str, *asked: Any) -> Any:
        self._ask(server, "backfill")
        return [event.pdu for event in self.history]


class Story(Shared):
    """A room of this server with people of two others."""

    elsewhere: Elsewheres

    @classmethod
    async def begin(cls, world: World, *, version: str = "11") -> Story:
        made = await world.public_room(world.user("alice"), version=version)
        story = cls(world, made, await made.live())
        story.elsewhere = Elsewheres(world)
        for name in (BOB, EVE):
            await story.elsewhere.sends(await story.compose(join(name)))
        return story

    async def state(self) -> dict[StateKey, Event]:
        stored = await self.world.states.events_at(self.room, self.room.state_ver)
        return {key: one.event for key, one in stored.items()}

    async def bodies(self) -> list[str]:
        recent = [one.event for one in self.room.recent if one.event.type == "m.room.message"]
        return [event.content["body"] for event in recent]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = await World.open(database)
    yield world
    await world.background.close()


async def after_a_gap(story: Story) -> tuple[Event, Event]:
    """An event that is never sent, and one on top of it."""
    lost = await story.compose(message("lost"))
    return lost, await story.compose(message("after"), on=[lost])


async def test_another_server_is_asked_where_the_first_does_not_answer(world: World) -> None:
    story = await Story.begin(world)
    lost, after = await after_a_gap(story)
    story.elsewhere.down.add(ELSEWHERE)
    story.elsewhere.pages[after.event_id] = [lost]
    await story.elsewhere.sends(after)
    assert await story.bodies() == ["lost", "after"]
    assert [server for server, _ in story.elsewhere.asked] == [ELSEWHERE, THIRD]


async def test_the_state_is_had_from_another_server_too(world: World) -> None:
    story = await Story.begin(world)
    _, after = await after_a_gap(story)
    story.elsewhere.down.add(ELSEWHERE)
    story.elsewhere.states[after.event_id] = list((await story.state()).values())
    await story.elsewhere.sends(after)
    assert await story.bodies() == ["after"]


async def test_a_gap_is_filled_in_as_many_steps_as_its_servers_need(world: World) -> None:
    story = await Story.begin(world)
    events = [await story.compose(message("0"))]
    for number in range(1, 6):
        events.append(await story.compose(message(str(number)), on=events[-1:]))
    story.elsewhere.pages[events[5].event_id] = events[3:5]
    story.elsewhere.pages[events[3].event_id] = events[1:3]
    story.elsewhere.pages[events[1].event_id] = events[:1]
    await story.elsewhere.sends(events[5])
    assert await story.bodies() == ["0", "1", "2", "3", "4", "5"]


async def test_what_cannot_be_placed_is_dropped_and_the_room_goes_on(world: World) -> None:
    story = await Story.begin(world)
    lost, after = await after_a_gap(story)
    with pytest.raises(Dropped):
        await story.elsewhere.sends(after)
    await story.elsewhere.sends(await story.compose(message("beside it")))
    await story.made.send(world.user("alice"), "and here")
    assert await story.bodies() == ["beside it", "and here"]
    # The missing event comes after all: what was dropped is taken in when it is sent again.
    await story.elsewhere.sends(lost)
    await story.elsewhere.sends(after)
    assert await story.bodies() == ["beside it", "and here", "lost", "after"]


async def test_a_later_event_brings_what_was_dropped(world: World) -> None:
    story = await Story.begin(world)
    lost, after = await after_a_gap(story)
    with pytest.raises(Dropped):
        await story.elsewhere.sends(after)
    later = await story.compose(message("later"), on=[after])
    story.elsewhere.pages[later.event_id] = [lost, after]
    await story.elsewhere.sends(later)
    assert await story.bodies() == ["lost", "after", "later"]


async def test_an_event_whose_auth_events_came_late_is_taken_then(world: World) -> None:
    story = await Story.begin(world)
    carol = await story.compose(join(CAROL))
    state = await story.state()
    said = story.elsewhere.compose(
        story.room.rules,
        story.room.room_id,
        [tip.event for tip in story.room.tips],
        state | {carol.key: carol},
        Draft(CAROL, "m.room.message", {"body": "mine"}),
    )
    story.elsewhere.down |= {ELSEWHERE, THIRD}
    with pytest.raises(Dropped):
        await story.elsewhere.sends(said)
    assert await world.events.by_id(said.event_id) is None
    story.elsewhere.down.clear()
    stored = await story.elsewhere.sends(said)
    # She is not in the room where it stands in the graph.
    assert stored.rejected
    assert (await outlier(world, carol)).pos is None


async def outlier(world: World, event: Event) -> StoredEvent:
    stored = await world.events.by_id(event.event_id)
    assert stored is not None
    return stored


# --- incomplete states ------------------------------------------------------------------------


async def test_a_state_may_lack_what_nobody_has_any_more(world: World) -> None:
    story = await Story.begin(world)
    topic = await story.compose(Draft(BOB, "m.room.other", {}, state_key=BOB))
    _, after = await after_a_gap(story)
    story.elsewhere.states[after.event_id] = [*(await story.state()).values(), topic]
    story.elsewhere.lost.add(topic.event_id)
    stored = await story.elsewhere.sends(after)
    assert not stored.rejected
    assert await story.made.membership(EVE) == "join"


async def test_what_an_incomplete_state_does_not_have_stays_as_it_is(world: World) -> None:
    story = await Story.begin(world)
    lost_state = await story.compose(Draft(BOB, "m.room.other", {}, state_key=BOB))
    _, after = await after_a_gap(story)
    state = await story.state()
    del state["m.room.member", EVE]
    story.elsewhere.states[after.event_id] = [*state.values(), lost_state]
    story.elsewhere.lost.add(lost_state.event_id)
    await story.elsewhere.sends(after)
    assert await story.made.membership(EVE) == "join"


async def test_a_state_without_what_the_room_stands_on_is_refused(world: World) -> None:
    story = await Story.begin(world)
    lost_state = await story.compose(Draft(BOB, "m.room.other", {}, state_key=BOB))
    _, after = await after_a_gap(story)
    state = await story.state()
    del state["m.room.power_levels", ""]
    story.elsewhere.states[after.event_id] = [*state.values(), lost_state]
    story.elsewhere.lost.add(lost_state.event_id)
    with pytest.raises(Dropped):
        await story.elsewhere.sends(after)


async def test_a_state_most_of_which_cannot_be_had_is_refused(world: World) -> None:
    story = await Story.begin(world)
    lost = [await story.compose(Draft(BOB, f"m.room.other{n}", {}, state_key=BOB)) for n in range(3)]
    _, after = await after_a_gap(story)
    story.elsewhere.states[after.event_id] = [*(await story.state()).values(), *lost]
    story.elsewhere.lost |= {event.event_id for event in lost}
    with pytest.raises(Dropped):
        await story.elsewhere.sends(after)


async def test_a_server_that_only_knows_whole_states_is_asked_for_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = await Story.begin(world)
    _, after = await after_a_gap(story)
    story.elsewhere.states[after.event_id] = list((await story.state()).values())

    async def unknown(server: str, room_id: str, event_id: str) -> Any:
        raise RemoteError(server, "?", reachable=True, transient=False, status=404, errcode="M_UNRECOGNIZED")

    monkeypatch.setattr(story.elsewhere, "state_ids", unknown)
    await story.elsewhere.sends(after)
    assert await story.bodies() == ["after"]


# --- rejections that are taken back -----------------------------------------------------------


async def rejected_for_a_wrong_state(story: Story) -> tuple[Event, Event]:
    """bob may set levels; an event of his that does comes with a state in which he may not.

    The event before it, which was never sent, and the event.
    """
    alice = story.world.user("alice")
    old = await story.state()
    levels = {"users": {alice: 100, BOB: 100}}
    await story.made.set_state(alice, "m.room.power_levels", levels)
    before = await story.compose(message("before"))
    draft = Draft(BOB, "m.room.power_levels", {**levels, "ban": 40}, state_key="")
    event = await story.compose(draft, on=[before])
    # Told by a server that knows nothing of his power, by way of an event nobody else has.
    story.elsewhere.states[event.event_id] = list(old.values())
    stored = await story.elsewhere.sends(event)
    assert stored.rejected
    return before, event


async def test_a_rejected_event_that_comes_again_is_judged_by_what_is_known_then(world: World) -> None:
    story = await Story.begin(world)
    before, event = await rejected_for_a_wrong_state(story)
    assert (await story.elsewhere.sends(event)).rejected
    await story.elsewhere.sends(before)
    announced = len(world.announced)
    stored = await story.elsewhere.sends(event)
    assert not stored.rejected
    assert stored.pos == story.room.last_pos
    assert [one.id for news in world.announced[announced:] for one in news.events] == [event.event_id]
    assert story.room.state["m.room.power_levels", ""].id == event.event_id
    again = await (await world.reopen()).events.by_id(event.event_id)
    assert again is not None
    assert (again.flags, again.pos, again.state_after) == (stored.flags, stored.pos, stored.state_after)


async def test_what_a_rejected_event_authorised_is_lifted_with_it(world: World) -> None:
    story = await Story.begin(world)
    before, event = await rejected_for_a_wrong_state(story)
    state = await story.state() | {event.key: event}
    carol = story.elsewhere.compose(story.room.rules, story.room.room_id, [event], state, join(CAROL))
    known = await story.elsewhere.inbound.store_outliers(story.room, [carol.pdu])
    assert known[carol.event_id].rejected
    await story.elsewhere.sends(before)
    await story.elsewhere.sends(event)
    said = story.elsewhere.compose(
        story.room.rules,
        story.room.room_id,
        [event],
        state | {carol.key: carol},
        Draft(CAROL, "m.room.message", {"body": "hers"}),
    )
    await story.elsewhere.sends(said)
    assert not (await outlier(world, carol)).rejected
    again = await (await world.reopen()).events.by_id(carol.event_id)
    assert again is not None
    assert not again.rejected


async def test_a_soft_failed_event_that_becomes_state_is_state_like_any_other(world: World) -> None:
    story = await Story.begin(world)
    alice = world.user("alice")
    await story.made.set_state(
        alice, "m.room.power_levels", {"users": {alice: 100, BOB: 100}, "events": {"m.room.topic": 0}}
    )
    with_power_tips, with_power = [tip.event for tip in story.room.tips], await story.state()
    invite_only = Draft(alice, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    await world.send.send(story.room.room_id, invite_only)
    late = story.elsewhere.compose(
        story.room.rules, story.room.room_id, with_power_tips, with_power, join(CAROL)
    )
    stored = await story.elsewhere.sends(late)
    assert stored.soft_failed
    opened = Draft(BOB, "m.room.join_rules", {"join_rule": "public"}, state_key="")
    world.clock.advance(1)  # so that what bob says of the join rule counts as the later word
    state = with_power | {late.key: late}
    on_it = story.elsewhere.compose(story.room.rules, story.room.room_id, [late], state, opened)
    merged = await story.elsewhere.sends(on_it)
    assert not merged.hidden
    assert await story.made.membership(CAROL) == "join"
    assert story.room.servers[ELSEWHERE] == 2
    change = [news for news in world.announced if news.events and news.events[-1].id == merged.id]
    assert change
    # Not in the timeline, but in the state that everybody is told.
    assert late.event_id not in {one.id for one in story.room.recent}


# --- history ----------------------------------------------------------------------------------


async def room_with_history(story: Story) -> tuple[list[Event], StoredEvent]:
    """Events of which only the last has come, with the state before it."""
    events = [await story.compose(message("0"))]
    for number in range(1, 5):
        events.append(await story.compose(message(str(number)), on=events[-1:]))
    state = list((await story.state()).values())
    for event in events:
        story.elsewhere.states[event.event_id] = state
    return events, await story.elsewhere.sends(events[-1])


def backfill_of(story: Story, patience: float = 20.0) -> Backfill:
    core, elsewhere = story.world.core, story.elsewhere
    return Backfill(
        db=core.db,
        keys=core.keys,
        rooms=core.rooms,
        events=core.events,
        states=core.states,
        timeline=core.timeline,
        inbound=elsewhere.inbound,
        missing=elsewhere.inbound._missing,
        remote=elsewhere,
        event_nids=core.event_nids,
        background=core.background,
        server_name=core.server_name,
        patience=patience,
    )


async def test_history_is_asked_of_another_server_where_one_does_not_answer(world: World) -> None:
    story = await Story.begin(world)
    events, newest = await room_with_history(story)
    story.elsewhere.down.add(ELSEWHERE)
    story.elsewhere.history = events[:-1]
    assert await backfill_of(story).fill(story.room, 0, newest.pos or 0, 10)
    placed = await world.events.by_ids([event.event_id for event in events])
    assert [one.pos for one in placed.values()] == sorted(one.pos or 0 for one in placed.values())
    assert all((one.pos or 0) < (newest.pos or 0) for one in list(placed.values())[:-1])


async def test_what_is_no_history_of_the_gap_is_not_put_there(world: World) -> None:
    story = await Story.begin(world)
    events, newest = await room_with_history(story)
    stray = await story.compose(message("stray"), on=events[-1:])
    story.elsewhere.history = [stray]
    assert not await backfill_of(story).fill(story.room, 0, newest.pos or 0, 10)
    assert await world.events.by_id(stray.event_id) is None
    story.elsewhere.history = [stray, *events[:-1]]
    assert await backfill_of(story).fill(story.room, 0, newest.pos or 0, 10)
    assert await world.events.by_id(stray.event_id) is None


async def test_nobody_waits_longer_than_so_long_for_history(world: World) -> None:
    story = await Story.begin(world)
    events, newest = await room_with_history(story)
    story.elsewhere.history = events[:-1]
    answer = asyncio.Event()
    give = story.elsewhere.backfill

    async def slowly(server: str, *asked: Any) -> Any:
        await answer.wait()
        return await give(server, *asked)

    story.elsewhere.backfill = slowly  # type: ignore[method-assign]
    backfill = backfill_of(story, patience=0.01)
    assert not await backfill.fill(story.room, 0, newest.pos or 0, 10)
    answer.set()
    for task in list(world.background._tasks):
        await task
    assert await world.events.by_id(events[0].event_id) is not None


async def test_events_that_build_on_each_other_in_a_circle_come_to_an_end(world: World) -> None:
    story = await Story.begin(world, version="1")
    first = await story.compose(message("first"))
    second = await story.compose(message("second"), on=[first])
    pdu = {**first.pdu, "prev_events": [[second.event_id, {}]]}
    (circular,) = await story.elsewhere.inbound.checked(story.room.rules, [pdu])
    assert isinstance(circular, Event)
    events = {circular.event_id: circular, second.event_id: second}
    assert reached([second.event_id], events).keys() == events.keys()
    assert reached(["$other:here.example"], events) == {}


async def test_history_on_a_fork_has_the_state_of_that_fork(world: World) -> None:
    story = await Story.begin(world)
    start = await story.compose(message("start"))
    state = await story.state()
    named = {"membership": "join", "displayname": "Bob"}
    renamed = await story.compose(Draft(BOB, "m.room.member", named, state_key=BOB), on=[start])
    beside = await story.compose(message("beside"), on=[start])
    newest = await story.compose(message("newest"), on=[renamed, beside])
    story.elsewhere.states[start.event_id] = list(state.values())
    story.elsewhere.states[newest.event_id] = list((state | {renamed.key: renamed}).values())
    placed = await story.elsewhere.sends(newest)
    story.elsewhere.history = [start, renamed, beside]
    assert await backfill_of(story).fill(story.room, 0, placed.pos or 0, 10)
    stored = await world.events.by_ids([renamed.event_id, beside.event_id])
    at = await world.states.events_at(story.room, stored[beside.event_id].state_before or 0)
    assert at[renamed.key].id == state[renamed.key].event_id
    after = await world.states.events_at(story.room, stored[renamed.event_id].state_after or 0)
    assert after[renamed.key].id == renamed.event_id
