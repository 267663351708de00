"""The work both servers do: prepared once, then measured in rounds of the same size.

A scenario is a function that prepares a server and returns what one round is; the round returns a
``Sample``.  The amount of work is counted, never timed, so that both servers end with the same data.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.connection import Unexpected
from bench.person import Person
from tests.processes import Authority, Server
from tests.resident import Resident

CONNECTIONS = 32


@dataclass(frozen=True)
class Size:
    """How much work a run is: rounds of each scenario, and what a round holds."""

    rounds: int
    messages: int
    pings: int
    rooms: int
    initial_syncs: int
    members: int
    #: Of an account that looks at a window of them.
    many_rooms: int


FULL = Size(rounds=5, messages=320, pings=60, rooms=150, initial_syncs=2, members=5000, many_rooms=5000)
QUICK = Size(rounds=2, messages=64, pings=20, rooms=15, initial_syncs=1, members=500, many_rooms=200)

#: Of an account with few rooms; and with how many Synapse is compared where ours has many, as
#: it takes too long to make as many there.
FEW_ROOMS = 100


@dataclass(frozen=True)
class Sample:
    """One round: ``count`` operations in ``seconds``, or each operation's own ``latencies`` (seconds)."""

    count: int
    seconds: float
    latencies: Sequence[float] = field(default=())
    #: For each operation when what follows from it was done too, in seconds from the same start.
    later: Sequence[float] = field(default=())


Round = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True)
class Scenario:
    """Its figures are these ``percentiles`` of an operation's time, or operations a second if none."""

    key: str
    title: str
    percentiles: tuple[int, ...]
    prepare: Callable[[Server, Size], Awaitable[Round]]
    #: What the ``later`` times of its samples are of.
    later: str = ""
    #: For one that takes long: not more rounds than this.
    most_rounds: int = 1000


async def _people(server: Server, count: int) -> list[Person]:
    return [await Person.register(server) for _ in range(count)]


def _sending(people: Sequence[Person], rooms: Sequence[str], size: Size) -> Round:
    """Each person sends an equal share of the round's messages, one after another, in their room."""
    share = size.messages // len(people)

    async def send_all(person: Person, room: str) -> set[str]:
        return {await person.send(room, f"Message {number} of {person.user_id}") for number in range(share)}

    async def one_round() -> Sample:
        start = time.perf_counter()
        sent = await asyncio.gather(*map(send_all, people, rooms))
        seconds = time.perf_counter() - start
        distinct = len(set().union(*sent))
        if distinct != share * len(people):
            raise Unexpected(f"{share * len(people)} messages sent, {distinct} event ids given")
        return Sample(distinct, seconds)

    return one_round


async def send_on_one_connection(server: Server, size: Size) -> Round:
    """One person alone in a room."""
    people = await _people(server, 1)
    return await _warmed(_sending(people, [await people[0].create_room("Alone")], size))


async def send_in_many_rooms(server: Server, size: Size) -> Round:
    """``CONNECTIONS`` people at once, each in a room of their own."""
    people = await _people(server, CONNECTIONS)
    rooms = [await person.create_room("One of many") for person in people]
    return await _warmed(_sending(people, rooms, size))


async def send_in_one_room(server: Server, size: Size) -> Round:
    """``CONNECTIONS`` people at once, all in the same room."""
    people = await _people(server, CONNECTIONS)
    room = await people[0].create_room("All together")
    for person in people[1:]:
        await person.join(room)
    return await _warmed(_sending(people, [room] * CONNECTIONS, size))


async def _warmed(one_round: Round) -> Round:
    """The round, after one that is not measured."""
    await one_round()
    return one_round


async def from_send_to_sync(server: Server, size: Size) -> Round:
    """From the moment one person sends to the moment the other, long-polling, has read the message."""
    alice, bob = await _people(server, 2)
    room = await alice.create_room("Ping")
    await bob.join(room)
    position = json.loads(await bob.sync())["next_batch"]

    async def heard(event_body: str) -> float:
        """The time at which Bob had the whole reply that holds the message."""
        nonlocal position
        while True:
            reply = await bob.sync(position, wait_ms=10_000)
            arrived = time.perf_counter()
            told = json.loads(reply)
            position = told["next_batch"]
            events = told.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
            if any(event["content"].get("body") == event_body for event in events):
                return arrived

    async def ping(text: str) -> float:
        listening = asyncio.create_task(heard(text))
        # Bob's request must be waiting in the server before Alice sends.
        await asyncio.sleep(0.02)
        start = time.perf_counter()
        await alice.send(room, text)
        return await asyncio.wait_for(listening, 30) - start

    async def one_round() -> Sample:
        latencies = [await ping(f"Ping {time.perf_counter_ns()}") for _ in range(size.pings)]
        return Sample(len(latencies), sum(latencies), latencies)

    return await _warmed(one_round)


async def initial_sync(server: Server, size: Size) -> Round:
    """A device's first ``/sync`` of a person in ``size.rooms`` rooms with two members and some talk."""
    alice, bob = await _people(server, 2)
    for number in range(size.rooms):
        room = await alice.create_room(f"Room {number}")
        await bob.join(room)
        for line in range(5):
            await bob.send(room, f"Line {line}")

    async def first_sync() -> float:
        # A device of its own each time, so that no reply kept for a repeated request is measured.
        device = await alice.on_a_new_device()
        start = time.perf_counter()
        reply = await device.sync()
        seconds = time.perf_counter() - start
        rooms = json.loads(reply)["rooms"]["join"]
        if len(rooms) != size.rooms or any(len(room["timeline"]["events"]) < 5 for room in rooms.values()):
            raise Unexpected(f"{len(rooms)} rooms in the initial sync of {size.rooms}")
        device.close()
        return seconds

    async def one_round() -> Sample:
        latencies = [await first_sync() for _ in range(size.initial_syncs)]
        return Sample(len(latencies), sum(latencies), latencies)

    return one_round


async def window_of_few(server: Server, size: Size) -> Round:
    """Sliding sync of a person in ``FEW_ROOMS`` rooms."""
    return await _window(server, size, FEW_ROOMS)


async def window_of_many(server: Server, size: Size) -> Round:
    """Sliding sync of a person in ``size.many_rooms`` rooms."""
    return await _window(server, size, FEW_ROOMS if server.software == "synapse" else size.many_rooms)


async def _window(server: Server, size: Size, rooms: int) -> Round:
    """A device's first request for the 20 latest rooms, and the next one after a message in one of them."""
    (person,) = await _people(server, 1)
    for number in range(rooms):
        room = await person.create_room(f"Room {number}")

    async def look() -> tuple[float, float]:
        device = await person.on_a_new_device()
        start = time.perf_counter()
        first = json.loads(await device.sliding_sync())
        after_first = time.perf_counter()
        await person.send(room, "One message")
        sent = time.perf_counter()
        second = json.loads(await device.sliding_sync(first["pos"]))
        done = time.perf_counter()
        if len(first["rooms"]) != 20 or list(second["rooms"]) != [room]:
            raise Unexpected(f"{len(first['rooms'])} rooms in a window of 20, then {list(second['rooms'])}")
        device.close()
        return after_first - start, done - sent

    async def one_round() -> Sample:
        times = [await look() for _ in range(size.initial_syncs * 5)]
        firsts = [first for first, _ in times]
        return Sample(len(times), sum(firsts), firsts, [first + second for first, second in times])

    return await _warmed(one_round)


async def join_a_big_room(server: Server, size: Size) -> Round:
    """A person joins a room that another server has, and then asks who is in it."""
    # Configured beside the server: both are trusted by the same authority.
    authority = Authority(server.folder.parent / "authority")
    people = await _people(server, 1)

    async def one_round() -> Sample:
        with Resident(authority) as resident:
            room, members = await asyncio.to_thread(resident.room, size.members)
            start = time.perf_counter()
            await people[0].join(room, through=resident.names[0])
            joined = time.perf_counter() - start
            known = await people[0].members(room)
            completed = time.perf_counter() - start
        if len(known) != members + 1 or people[0].user_id not in known:
            raise Unexpected(f"{len(known)} members in a room of {members} and the one who joined")
        return Sample(1, completed, [joined], [completed])

    return one_round


SCENARIOS = [
    Scenario("send_1", "Messages a second, 1 connection", (), send_on_one_connection),
    Scenario("send_32_rooms", "Messages a second, 32 connections in 32 rooms", (), send_in_many_rooms),
    Scenario("send_one_room", "Messages a second, 32 connections in one room", (), send_in_one_room),
    Scenario("send_to_sync", "From send to the other's /sync", (50, 95), from_send_to_sync),
    Scenario("initial_sync", "Initial sync", (50,), initial_sync),
    Scenario(
        "window_few",
        f"Sliding sync of 20 rooms in an account with {FEW_ROOMS}",
        (50,),
        window_of_few,
        later="with the request after a message",
    ),
    Scenario(
        "window_many",
        f"Sliding sync of 20 rooms in an account with thousands (Synapse: {FEW_ROOMS})",
        (50,),
        window_of_many,
        later="with the request after a message",
    ),
    Scenario(
        "join",
        "Joining another server's room",
        (50,),
        join_a_big_room,
        later="until all its members are known",
        most_rounds=3,
    ),
]
