"""The other axes: an account's rooms, a room's events, waiting clients, and servers in a room."""

from __future__ import annotations

import asyncio
import time

import orjson

from bench.generator.connection import Connection, Unexpected
from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import Prepared, shared_out
from bench.growth.scene import GUESTS, Scene, small_room
from bench.growth.services import SERVICE_TOKEN
from bench.scenarios.scenario import Sample
from tests.processes import Authority
from tests.resident import Resident

_WAITING_MS = 600_000
# They do not follow when the others come online.
_NO_PRESENCE = '{"presence":{"types":[]}}'
#: So many of the clients that wait share a room.
_ROOM_MATES = 50
_PATIENCE = 120.0


class Rooms:
    """Somebody who makes ever more rooms, and listens to all of them."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    async def scene(self, rooms: int) -> Scene:
        """Another speaks in one of them; the joins are of theirs."""
        creator, made = await self._prepared.creator_of(rooms)
        (speaker,) = await self._prepared.people(1)
        await speaker.join(made[0])
        await creator.set_state(made[0], "m.room.power_levels", {"state_default": 0, "users": {}})
        others = [await speaker.create_room("To be joined") for _ in range(GUESTS)]
        return Scene(made[0], speaker, creator, [(creator, room) for room in others])


class Events:
    """A room that is filled from without, while the server is stopped."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._scene: Scene | None = None

    async def scene(self, _: int) -> Scene:
        """The same room each time."""
        if self._scene is None:
            self._scene = await small_room(self._prepared)
        return self._scene

    async def talk(self, messages: int) -> None:
        """Fill the room over HTTP."""
        assert self._scene is not None
        room, people = self._scene.room, [self._scene.speaker, self._scene.listener]

        async def say(person: Person, number: int) -> None:
            await person.send(room, f"Message {number} of those put in")

        await shared_out(people, range(messages), say)


class Waiting:
    """Clients that wait with long polls for what does not come, in rooms of their own."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._clients: list[Person] = []
        self._polls: list[asyncio.Task[None]] = []
        self._room = ""
        self._answered = 0
        self._elsewhere: Scene | None = None

    async def scene(self, clients: int) -> Scene:
        """So many of them have been told what there was, and wait."""
        if self._elsewhere is None:
            self._elsewhere = await small_room(self._prepared)
            self._prepared.closing.callback(self._end)
        while len(self._clients) < clients:
            more = min(clients - len(self._clients), _ROOM_MATES - len(self._clients) % _ROOM_MATES)
            self._clients += await self._room_mates(more)
        return self._elsewhere

    async def wait(self) -> int:
        """Open the long polls that are not open yet; how many are, once nothing comes in any."""
        new = self._clients[len(self._polls) :]
        self._polls += [asyncio.create_task(self._poll(person)) for person in new]
        answered = -1
        while answered < self._answered:
            answered = self._answered
            await asyncio.sleep(1 + len(new) / 500)
        if ended := [poll for poll in self._polls if poll.done()]:
            raise Unexpected(f"{len(ended)} clients stopped to wait") from ended[0].exception()
        return len(self._polls)

    async def _poll(self, person: Person) -> None:
        position = ""
        while True:
            reply = await person.sync(position, wait_ms=_WAITING_MS, filter_=_NO_PRESENCE)
            position = orjson.loads(reply)["next_batch"]
            self._answered += 1

    async def _room_mates(self, count: int) -> list[Person]:
        start = len(self._clients)
        service = [Connection(self._prepared.site.client_url) for _ in range(4)]
        if self._prepared.site.software == "synapse":
            people = await shared_out(service, range(count), self._with_password)
        else:
            people = await shared_out(service, range(start, start + count), self._of_service)
        for connection in service:
            connection.close()
        if not start % _ROOM_MATES:
            self._room = await people[0].create_room("They wait here")
        for person in people:
            await person.join(self._room)
        return people

    async def _with_password(self, _service: Connection, _: int) -> Person:
        return await Person.register(self._prepared.site)

    async def _of_service(self, service: Connection, number: int) -> Person:
        # Registered by an application service, who need no password, whose hash takes so long.
        return await Person.of_service(self._prepared.site, service, SERVICE_TOKEN, f"waits{number}")

    def _end(self) -> None:
        for poll in self._polls:
            poll.cancel()


class Destinations:
    """Rooms of another with ever more servers in them, none of which answers what is sent to it."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    async def scene(self, destinations: int) -> Scene:
        """A room that is joined, with the first transaction on its way to all who are in it."""
        prepared = self._prepared
        authority = Authority(prepared.site.authority)
        resident = prepared.closing.enter_context(Resident(authority, names=destinations))
        speaker, listener, *guests = await prepared.people(2 + GUESTS)
        room, _ = await asyncio.to_thread(resident.room, max(10, destinations + 1))
        await speaker.join(room, through=resident.names[0])
        await speaker.members(room)
        await listener.join(room)

        async def delivery(count: int, meter: Meter) -> Sample:
            """Messages, one after another, each until it has come to everybody."""
            taken, times = await _until_quiet(resident), []
            with meter:
                for number in range(count):
                    start = time.perf_counter()
                    await speaker.send(room, f"To all of you, {number}")
                    taken += destinations
                    await _until_taken(resident, taken)
                    times.append((time.perf_counter() - start) / destinations)
            return Sample(count * destinations, times)

        async def hold() -> None:
            """From now on, what is sent only queues: of many that answer, each costs its share."""
            await _until_quiet(resident)
            await asyncio.to_thread(resident.hold, "transactions")
            await speaker.send(room, "It waits for an answer everywhere")
            await asyncio.sleep(1 + destinations / 100)

        guests_come = [(guest, room) for guest in guests]
        return Scene(room, speaker, listener, guests_come, {"delivery": delivery}, before_common=hold)


async def _until_quiet(resident: Resident) -> int:
    """How much was delivered, once nothing comes any more."""
    _, taken = await asyncio.to_thread(resident.transactions)
    while True:
        await asyncio.sleep(1)
        _, more = await asyncio.to_thread(resident.transactions)
        if more == taken:
            return taken
        taken = more


async def _until_taken(resident: Resident, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (await asyncio.to_thread(resident.transactions))[1] < count:
        if time.monotonic() > deadline:
            raise Unexpected(f"not all of {count} deliveries came within {_PATIENCE:.0f} s")
        await asyncio.sleep(0.005)
