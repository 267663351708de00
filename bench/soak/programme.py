"""What the load generator does in a soak: a town of people who do things and listen to each other."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import orjson

from bench.generator.connection import Unexpected
from bench.generator.peer import running_peer
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.soak.deeds import DEEDS, Deed, NobodyFree, Town

_PEOPLE, _SPARE, _ROOMS, _IN_ROOM = 30, 6, 10, 8
_WAIT_MS = 30_000
#: A message that somebody has not been told of for so long is lost, in seconds.
_LOST_AFTER = 60.0
#: What a send is called when it has come to the last of those in the room.
HEARD = "heard by all in the room"


class Programme:
    """``argument`` says by how much everything is more than usual."""

    def __init__(self, prepared: Prepared, times: float) -> None:
        self._prepared = prepared
        self._times = times
        self._tasks: list[asyncio.Task[None]] = []
        self._latencies: dict[str, list[float]] = {}
        self._skipped = 0
        #: Of each message on its way, when it was sent and how many have not heard of it.
        self._unheard: dict[tuple[str, str], tuple[float, int]] = {}
        self._listeners: dict[str, int] = {}

    async def do(self, what: str) -> Any:
        """``"begin"``, ``"collect"`` or ``"end"``."""
        return await getattr(self, what)()

    async def begin(self) -> None:
        """Build the town; from now on things are done there."""
        people = await self._prepared.people(_PEOPLE + _SPARE)
        rooms: dict[str, list[Person]] = {}
        for number in range(_ROOMS):
            members = [people[(number * 3 + each) % _PEOPLE] for each in range(_IN_ROOM)]
            room = await members[0].create_room(f"Room {number}")
            for member in members[1:]:
                await member.join(room)
            rooms[room] = members
        peer = await self._prepared.closing.enter_async_context(running_peer(self._prepared.site))
        peer_room = peer.room(20)
        for person in people[:_IN_ROOM]:
            await person.join(peer_room.room_id, through=peer.name)
        town = Town(rooms, people[_PEOPLE:], peer, peer_room, self._announced)
        self._listeners = {room: len(members) for room, members in rooms.items()}
        devices = [await person.on_a_new_device() for person in people[:_PEOPLE]]
        positions = [await device.position() for device in devices]
        self._tasks = [
            *(asyncio.create_task(self._listen(*each)) for each in zip(devices, positions, strict=True)),
            *(asyncio.create_task(self._keep_doing(name, deed, town)) for name, deed in DEEDS.items()),
        ]
        self._prepared.closing.push_async_callback(self.end)

    async def collect(self) -> tuple[dict[str, list[float]], int]:
        """Latencies in seconds by what was done since the last time, and how much was left out.

        Raises what went wrong, ``Unexpected`` for messages that got lost.
        """
        for task in self._tasks:
            if task.done():
                task.result()
        late = time.perf_counter() - _LOST_AFTER
        if lost := [text for (_, text), (sent, _) in self._unheard.items() if sent < late]:
            raise Unexpected(f"{len(lost)} messages did not come to everybody: {lost[:3]}")
        latencies, skipped = self._latencies, self._skipped
        self._latencies, self._skipped = {}, 0
        return latencies, skipped

    async def end(self) -> None:
        """Nothing is done any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep_doing(self, name: str, deed: Deed, town: Town) -> None:
        """Begin at fixed times, however long the server takes: a slow server does not get less to do."""
        interval = 1 / (deed.per_second * self._times)
        # What is done equally often is not always done at the same moment.
        due = time.perf_counter() + interval * random.random()
        async with asyncio.TaskGroup() as doing:
            while True:
                due += interval
                await asyncio.sleep(max(0, due - time.perf_counter()))
                doing.create_task(self._once(name, deed, town))

    async def _once(self, name: str, deed: Deed, town: Town) -> None:
        start = time.perf_counter()
        try:
            own = await deed.do(town)
        except NobodyFree:
            self._skipped += 1
        else:
            seconds = time.perf_counter() - start if own is None else own
            self._latencies.setdefault(name, []).append(seconds)

    async def _listen(self, device: Person, position: str) -> None:
        while True:
            told = orjson.loads(await device.sync(position, wait_ms=_WAIT_MS))
            position = told["next_batch"]
            for room, joined in told.get("rooms", {}).get("join", {}).items():
                for event in joined["timeline"]["events"]:
                    self._heard(room, event["content"].get("body", ""))

    def _announced(self, room: str, text: str) -> None:
        self._unheard[room, text] = (time.perf_counter(), self._listeners[room])

    def _heard(self, room: str, text: str) -> None:
        sent, missing = self._unheard.pop((room, text), (0.0, 0))
        if missing > 1:
            self._unheard[room, text] = (sent, missing - 1)
        elif missing == 1:
            self._latencies.setdefault(HEARD, []).append(time.perf_counter() - sent)
