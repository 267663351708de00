"""Many write and many sync at the same time: everyone sees every event once, in the order of the room."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests.flows.conftest import Register
from tests.interop.client import Client

pytestmark = pytest.mark.xdist_group("concurrent-sync")

ROOMS = 3
WRITERS = 8
EVENTS_EACH = 40
#: How much of a timeline each of the syncers wants at once.
TIMELINE_LIMITS = (1, 2, 3, 5, 8, 20, 50, 100)
PATIENCE = 60.0


@dataclass
class Reader:
    """Somebody who syncs, and fills the gaps in the timelines.

    ``seen`` has the events of each room, oldest first, from the first sync's last one on.
    """

    person: Client
    limit: int
    seen: dict[str, list[str]] = field(default_factory=dict)
    gaps: int = 0
    _since: str | None = None

    async def sync(self) -> None:
        """One ``/sync`` on from the last."""
        wanted = json.dumps({"room": {"timeline": {"limit": self.limit}}})
        query: dict[str, Any] = {"filter": wanted, "timeout": 2_000}
        if self._since is not None:
            query["since"] = self._since
        reply = await self.person.request("GET", "/sync", **query)
        for room, update in reply.get("rooms", {}).get("join", {}).items():
            await self._take(room, update["timeline"])
        self._since = reply["next_batch"]

    async def until_seen(self, events: dict[str, str]) -> None:
        """Sync on until each room's event has come."""
        deadline = time.monotonic() + PATIENCE
        while any(event not in self.seen[room] for room, event in events.items()):
            assert time.monotonic() < deadline, f"{self.person.user_id} saw {self.seen}"
            await self.sync()

    async def _take(self, room: str, timeline: dict[str, Any]) -> None:
        new = [event["event_id"] for event in timeline["events"]]
        assert len(new) <= self.limit
        if self._since is None:
            self.seen[room] = new[-1:]
            return
        if timeline["limited"]:
            self.gaps += 1
            new = [*await self._gap(room, timeline["prev_batch"]), *new]
        self.seen[room] += new

    async def _gap(self, room: str, prev_batch: str) -> list[str]:
        """What is between the last event seen and ``prev_batch``, oldest first."""
        events: list[str] = []
        known = set(self.seen[room])
        while True:
            path = f"/rooms/{quote(room)}/messages"
            query: dict[str, Any] = {"dir": "b", "limit": 7, "from": prev_batch}
            reply = await self.person.request("GET", path, **query)
            page = [event["event_id"] for event in reply["chunk"]]
            assert page, "the room's history ended before anything that was seen"
            events += itertools.takewhile(lambda event: event not in known, page)
            if known.intersection(page):
                return events[::-1]
            prev_batch = reply["end"]


async def write(person: Client, rooms: list[str], seed: int) -> None:
    """Send a number of events into rooms chosen by lot, now and then a change of state."""
    chance = random.Random(seed)
    for number in range(EVENTS_EACH):
        room = chance.choice(rooms)
        if chance.random() < 0.1:
            await person.set_state(room, "org.example.mood", {"n": number}, f"writer {seed}")
        else:
            await person.say(room, f"{seed}: {number}")


async def test_every_member_sees_every_event_once_and_in_order(register: Register) -> None:
    alice = await register("alice")
    writers = [await register("writer") for _ in range(WRITERS)]
    readers = [Reader(await register("reader"), limit) for limit in TIMELINE_LIMITS]
    anyone = {"state_default": 0}
    rooms = [
        await alice.create_room(preset="public_chat", power_level_content_override=anyone)
        for _ in range(ROOMS)
    ]
    for person in (*writers, *(reader.person for reader in readers)):
        for room in rooms:
            await person.join(room)
    first = {room: await alice.say(room, "ready") for room in rooms}
    await asyncio.gather(*(reader.sync() for reader in readers))
    assert all(reader.seen == {room: [event] for room, event in first.items()} for reader in readers)

    async def write_everything() -> dict[str, str]:
        await asyncio.gather(*(write(writer, rooms, seed) for seed, writer in enumerate(writers)))
        return {room: await alice.say(room, "done") for room in rooms}

    async def read_along(reader: Reader, writing: asyncio.Task[dict[str, str]]) -> None:
        while not writing.done():
            await reader.sync()
        await reader.until_seen(await writing)

    writing = asyncio.create_task(write_everything())
    await asyncio.gather(*(read_along(reader, writing) for reader in readers))

    last = await writing
    for room in rooms:
        history = [event["event_id"] for event in (await alice.history(room, page=50))[::-1]]
        told = history[history.index(first[room]) : history.index(last[room]) + 1]
        assert len(told) == len(set(told))
        for reader in readers:
            assert reader.seen[room] == told, f"{reader.person.user_id} with a timeline of {reader.limit}"
    assert sum(len(reader.seen[room]) for room in rooms for reader in readers[:1]) == (
        WRITERS * EVENTS_EACH + 2 * ROOMS
    )
    assert readers[0].gaps > 0, "no timeline was ever cut short, so the gaps were not tested"
