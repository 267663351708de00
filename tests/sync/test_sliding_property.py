"""A client of sliding sync that asks for this and that ends up knowing what ``/sync`` tells.

A random history is played to a server; in between a model client asks for random windows of it,
loses responses, repeats requests, begins anew.  In the end it asks for everything once, and must
know the same rooms, state, timelines and counts as somebody who syncs for the first time.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.storage import open_database
from homeserver.storage.database import Database
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of
from tests.world import SERVER, WorldRoom

ALICE, BOB, CAROL = (f"@{name}:{SERVER}" for name in ("alice", "bob", "carol"))
ROOMS = 4
ALL_STATE = [["*", "*"], ["m.room.member", "*"]]
REQUIRED = (ALL_STATE, [["m.room.topic", ""]], [["m.room.member", "$ME"], ["*", ""]])

Step = tuple[Any, ...]

ROOM = st.integers(0, ROOMS - 1)
ACTION = st.one_of(
    st.tuples(st.just("send"), ROOM, st.sampled_from((ALICE, BOB)), st.integers(1, 4)),
    st.tuples(st.just("state"), ROOM, st.sampled_from(("m.room.name", "m.room.topic")), st.integers(0, 3)),
    st.tuples(st.just("join"), ROOM, st.sampled_from((BOB, CAROL))),
    st.tuples(st.just("leave"), ROOM, st.sampled_from((BOB, CAROL))),
    st.tuples(st.just("invite"), ROOM, st.just(BOB)),
    st.tuples(st.just("kick"), ROOM, st.just(BOB)),
    st.tuples(st.just("tag"), ROOM),
)
RANGE = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda ends: [min(ends), max(ends)])
ASK = st.tuples(
    st.just("ask"),
    st.sampled_from(("all", "all", "favourites", "invites")),
    st.lists(RANGE, min_size=1, max_size=2),
    st.sampled_from((0, 1, 3)),
    st.integers(0, len(REQUIRED) - 1),
    st.lists(ROOM, max_size=1),
    # What becomes of the response: it arrives, is lost, or is lost with the whole connection.
    st.sampled_from(("arrives", "arrives", "arrives", "lost", "anew")),
)
#: The same request as before.
AGAIN = st.tuples(st.just("again"), st.sampled_from(("arrives", "lost")))
STEPS = st.lists(st.one_of(ACTION, ACTION, ASK, AGAIN), max_size=30)


def ask(ranks: list[int], limit: int, required: int, *subscribed: int) -> Step:
    """One request for the rooms with some ranks, whose response arrives."""
    return ("ask", "all", [ranks], limit, required, list(subscribed), "arrives")


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "favourites": {"tags": ["m.favourite"]},
    "invites": {"is_invite": True},
}


@dataclass
class KnownRoom:
    """What a client makes of the responses about one room."""

    timeline: list[str] = field(default_factory=list)
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    invited: bool = False

    def take(self, told: dict[str, Any]) -> None:
        self.invited = "invite_state" in told
        told_timeline = [event["event_id"] for event in told["timeline"]]
        if told.get("limited") or told.get("unstable_expanded_timeline"):
            self.timeline = told_timeline
        else:
            self.timeline += told_timeline
        for event in told["required_state"]:
            self.state[event["type"], event["state_key"]] = event["event_id"]
        for name in ("name", "joined_count", "invited_count", "bump_stamp"):
            if name in told:
                self.facts[name] = told[name]


@dataclass
class Model:
    """A client that keeps what it is told."""

    client: SlidingClient
    rooms: dict[str, KnownRoom] = field(default_factory=dict)

    async def ask(self, fate: str, **body: Any) -> dict[str, Any]:
        if fate == "lost":
            return await self.client.ask(pos=self.client.pos, **body)
        if fate == "anew":
            self.client.pos = None
        response = await self.client.sync(**body)
        for room_id, told in response["rooms"].items():
            if told.get("initial"):
                self.rooms[room_id] = KnownRoom()
            self.rooms[room_id].take(told)
        return response


async def play(server: SyncServer, rooms: list[WorldRoom], step: Step) -> None:
    kind, room = step[0], rooms[step[1]]
    match kind:
        case "send":
            for number in range(step[3]):
                await room.send(step[2], str(number))
        case "state":
            await room.set_state(ALICE, step[2], {step[2].removeprefix("m.room."): f"{step[3]}"})
        case "join":
            await room.join(step[2])
        case "leave":
            await room.leave(step[2])
        case "invite":
            await room.invite(ALICE, step[2])
        case "kick":
            await room.set_state(ALICE, "m.room.member", {"membership": "leave"}, state_key=step[2])
        case "tag":
            await server.account_data.set_tag(BOB, room.room_id, "m.favourite", {})


def body_of(step: Step, rooms: list[WorldRoom]) -> dict[str, Any]:
    _, filters, ranges, limit, required, subscribed, _ = step
    config = {"timeline_limit": limit, "required_state": REQUIRED[required]}
    return {
        "lists": {"list": {**config, "ranges": ranges, "filters": FILTERS[filters]}},
        "room_subscriptions": {
            rooms[index].room_id: {"timeline_limit": 5, "required_state": ALL_STATE} for index in subscribed
        },
    }


async def check(model: Model, body: dict[str, Any]) -> None:
    """What a new connection would be told of the same request is known."""
    fresh = SlidingClient(model.client.sliding, BOB, conn_id="fresh")
    for room_id, told in (await fresh.ask(pos=None, **body))["rooms"].items():
        mine = model.rooms[room_id]
        latest = [event["event_id"] for event in told["timeline"]][-1:]
        assert mine.timeline[len(mine.timeline) - len(latest) :] == latest
        state = {(one["type"], one["state_key"]): one["event_id"] for one in told["required_state"]}
        assert state.items() <= mine.state.items()
        assert mine.invited == ("invite_state" in told)


async def compare(model: Model, server: SyncServer) -> None:
    everything = {"list": {"timeline_limit": 6, "required_state": ALL_STATE, "ranges": [[0, 99]]}}
    response = await model.ask("arrives", lists=everything)
    assert (await model.ask("arrives", lists=everything))["rooms"] == {}
    whole = await server.client("bob", device="LAPTOP").sync(filter={"room": {"timeline": {"limit": 100}}})
    joined, invited = whole["rooms"].get("join", {}), whole["rooms"].get("invite", {})
    assert response["lists"]["list"]["count"] >= len(joined) + len(invited)
    mine = {
        room_id: room
        for room_id, room in model.rooms.items()
        if not room.invited and room_id in joined  # rooms that were left are no more in either
    }
    assert set(mine) == set(joined)
    assert set(invited) <= {room_id for room_id, room in model.rooms.items() if room.invited}
    for room_id, section in joined.items():
        timeline = [event["event_id"] for event in section["timeline"]["events"]]
        assert mine[room_id].timeline == timeline[len(timeline) - len(mine[room_id].timeline) :]
        assert len(mine[room_id].timeline) >= min(6, len(timeline))
        state = section["state"]["events"] + section["timeline"]["events"]
        now = {(one["type"], one["state_key"]): one["event_id"] for one in state if "state_key" in one}
        assert mine[room_id].state == now
        assert mine[room_id].facts["joined_count"] == section["summary"]["m.joined_member_count"]
        assert mine[room_id].facts["invited_count"] == section["summary"]["m.invited_member_count"]


async def tell(db: Database, steps: list[Step]) -> None:
    server = await SyncServer.open(db)
    for name in ("alice", "bob", "carol"):
        server.world.user(name)
    rooms = [await server.world.public_room(ALICE) for _ in range(ROOMS)]
    for room in rooms[:2]:
        await room.join(BOB)
    model = Model(SlidingClient(sliding_of(server), BOB))
    body: dict[str, Any] = {}
    for step in steps:
        if step[0] in {"ask", "again"}:
            body = body_of(step, rooms) if step[0] == "ask" else body
            await model.ask(step[-1], **body)
            if step[-1] != "lost":
                await check(model, body)
            continue
        try:
            await play(server, rooms, step)
        except (MatrixError, NotAllowed):
            continue  # Bob is not where the step would have him do something
    await compare(model, server)


async def tell_in(path: Path, steps: list[Step]) -> None:
    db = await open_database(str(path))
    try:
        await tell(db, steps)
    finally:
        await db.close()


@pytest.mark.timeout(600)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@example([("kick", 0, BOB), ask([0, 1], 0, 2), ask([0, 3], 0, 0)])
@example([("kick", 0, BOB), ask([0, 3], 0, 0), ask([0, 3], 3, 0)])
@example([("join", 3, BOB), ask([0, 1], 0, 2, 3), ("leave", 3, BOB), ask([0, 2], 1, 0)])
def test_whatever_one_asked_for_before_one_knows_the_same_in_the_end(
    sqlite_template: Path, steps: list[Step]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(sqlite_template, Path(folder) / "inglenook.db"))
        assert asyncio.run(tell_in(path, steps)) is None
