"""A client that knows by extensions of sliding sync what ``/sync`` tells.

A random history is played to a server: people read, type, keep data and send messages to a
device.  In between the device asks for the latest rooms, loses responses, begins anew, and syncs
the old way beside.  In the end it must know the same account data, receipts and typing as
somebody who syncs for the first time, and have every message once from each side.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.rooms.receipts import READ, READ_PRIVATE
from homeserver.storage.database import Database
from tests.databases import in_copy_of
from tests.sync.extension_client import ENABLED
from tests.sync.server import Client, SyncServer
from tests.sync.sliding_client import SlidingClient, extended, top
from tests.world import SERVER, WorldRoom

ALICE, BOB = (f"@{name}:{SERVER}" for name in ("alice", "bob"))
ROOMS, DEVICE = 3, "PHONE"
EXTENSIONS = ("account_data", "receipts", "typing", "e2ee")

Step = tuple[Any, ...]

ROOM = st.integers(0, ROOMS - 1)
STEP = st.one_of(
    st.tuples(st.just("send"), ROOM),
    st.tuples(
        *(st.just("read"), ROOM, st.sampled_from((ALICE, BOB)), st.sampled_from((READ, READ_PRIVATE))),
        st.integers(0, 9),
    ),
    st.tuples(st.just("type"), ROOM, st.sampled_from((ALICE, BOB)), st.booleans()),
    st.tuples(st.just("keep"), st.one_of(st.none(), ROOM), st.sampled_from("ab"), st.integers(0, 9)),
    st.tuples(st.just("message"), st.integers(1, 3)),
    st.tuples(st.just("sync")),
)
ASK = st.tuples(
    *(st.just("ask"), st.integers(0, ROOMS - 1), st.lists(ROOM, max_size=1), st.sampled_from((1, 2, 100))),
    # What becomes of the response: it arrives, is lost, or is lost with the whole connection.
    st.sampled_from(("arrives", "arrives", "arrives", "lost", "anew")),
)
STEPS = st.lists(st.one_of(STEP, STEP, ASK), max_size=40)


@dataclass
class Known:
    """What a client knows, by any way of syncing."""

    account_data: dict[tuple[str, str], Any] = field(default_factory=dict)
    receipts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    typing: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def keep(self, room_id: str, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.account_data[room_id, event["type"]] = event["content"]

    def hear(self, room_id: str, event: dict[str, Any]) -> None:
        """Take in an ephemeral event."""
        if event["type"] == "m.typing":
            self.typing[room_id] = event["content"]["user_ids"]
            return
        for event_id, by_type in event["content"].items():
            for type_, users in by_type.items():
                self.receipts.update({(room_id, user_id, type_): event_id for user_id in users})

    def somebody_types(self) -> dict[str, list[str]]:
        return {room_id: users for room_id, users in self.typing.items() if users}


@dataclass
class Story:
    """Bob's phone, which is told of rooms that Alice and he are in."""

    server: SyncServer
    rooms: list[WorldRoom]
    phone: SlidingClient
    old: Client
    known: Known = field(default_factory=Known)
    sent: int = 0
    since: str | None = None
    #: The messages to the device that each way of syncing brought, in order.
    by_sliding: list[int] = field(default_factory=list)
    by_sync: list[int] = field(default_factory=list)

    async def play(self, step: Step) -> None:
        await getattr(self, f"_{step[0]}")(*step[1:])

    async def _send(self, room: int) -> None:
        await self.rooms[room].send(ALICE, "hello")

    async def _read(self, room: int, user_id: str, type_: str, which: int) -> None:
        timeline = await self.rooms[room].timeline()
        event = timeline[which % len(timeline)]
        await self.server.receipts.read(user_id, self.rooms[room].room_id, type_, event.id)

    async def _type(self, room: int, user_id: str, typing: bool) -> None:
        await self.server.typing.set_typing(user_id, self.rooms[room].room_id, typing)

    async def _keep(self, room: int | None, name: str, value: int) -> None:
        room_id = "" if room is None else self.rooms[room].room_id
        await self.server.account_data.set_content(BOB, f"org.{name}", {"is": value}, room_id=room_id)

    async def _message(self, count: int) -> None:
        for _ in range(count):
            content = {BOB: {DEVICE: {"number": self.sent}}}
            await self.server.to_device.send(ALICE, None, "m.test", str(self.sent), content)
            self.sent += 1

    async def _sync(self) -> None:
        response = await self.old.sync()
        self.by_sync += [event["content"]["number"] for event in response["to_device"]["events"]]

    async def _ask(self, last: int, subscribed: list[int], limit: int, fate: str) -> None:
        if fate == "anew":
            self.phone.pos, self.known = None, Known()
        to_device = {**ENABLED, "limit": limit, **({"since": self.since} if self.since else {})}
        config = top(last, limit=50)
        response = await self.phone.ask(
            pos=self.phone.pos,
            lists={"all": config},
            room_subscriptions={
                self.rooms[room].room_id: {"timeline_limit": 50, "required_state": []} for room in subscribed
            },
            extensions={**dict.fromkeys(EXTENSIONS, ENABLED), "to_device": to_device},
        )
        if fate == "lost":
            return
        self.phone.pos = response["pos"]
        self._take_in(response["extensions"])

    def _take_in(self, told: dict[str, Any]) -> None:
        account_data = told.get("account_data", {"global": [], "rooms": {}})
        self.known.keep("", account_data["global"])
        for room_id, events in account_data["rooms"].items():
            self.known.keep(room_id, events)
        for name in ("receipts", "typing"):
            for room_id, event in told.get(name, {"rooms": {}})["rooms"].items():
                self.known.hear(room_id, event)
        self.since = told["to_device"]["next_batch"]
        self.by_sliding += [event["content"]["number"] for event in told["to_device"]["events"]]

    async def end(self) -> None:
        """Ask for everything there is."""
        await self._ask(ROOMS, [], 100, "arrives")
        await self._ask(ROOMS, [], 100, "arrives")
        await self._sync()


async def by_first_sync(server: SyncServer) -> Known:
    """What somebody knows who syncs for the first time."""
    known = Known()
    response = await Client(server, BOB, "TABLET").sync()
    known.keep("", response["account_data"]["events"])
    for room_id, room in response["rooms"]["join"].items():
        known.keep(room_id, room["account_data"]["events"])
        for event in room["ephemeral"]["events"]:
            known.hear(room_id, event)
    return known


async def tell(db: Database, steps: list[Step]) -> int:
    """How many messages the device has had in the end."""
    server = await SyncServer.open(db)
    for name in ("alice", "bob"):
        server.world.user(name)
    await server.add_device(BOB, DEVICE)
    rooms = [await server.world.public_room(ALICE) for _ in range(ROOMS)]
    for room in rooms:
        await room.join(BOB)
    phone = SlidingClient(extended(server), BOB, DEVICE)
    story = Story(server, rooms, phone, Client(server, BOB, DEVICE))
    for step in steps:
        await story.play(step)
    await story.end()
    expected = await by_first_sync(server)
    assert story.known.account_data == expected.account_data
    assert story.known.receipts == expected.receipts
    assert story.known.somebody_types() == expected.somebody_types()
    for received in (story.by_sliding, story.by_sync):
        assert received == sorted(set(received))
    received_at_all = {*story.by_sliding, *story.by_sync}
    assert received_at_all == set(range(story.sent))
    return len(received_at_all)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_extensions_tell_what_sync_tells(sqlite_template: Path, steps: list[Step]) -> None:
    told = asyncio.run(in_copy_of(sqlite_template, partial(tell, steps=steps)))
    assert told == sum(step[1] for step in steps if step[0] == "message")
