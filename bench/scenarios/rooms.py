"""Rooms made, and rooms of the same server joined."""

from __future__ import annotations

import time

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.scenarios.scenario import OneRound, Sample, Scenario, latency
from bench.scenarios.size import Size


async def create(prepared: Prepared, size: Size) -> OneRound:
    """One person makes public rooms, one after another."""
    (person,) = await prepared.people(1)

    async def one_round(meter: Meter) -> Sample:
        times, made = [], set()
        with meter:
            for number in range(size.created_rooms):
                start = time.perf_counter()
                made.add(await person.create_room(f"New room {number}"))
                times.append(person.connection.arrived - start)
        if len(made) != size.created_rooms:
            raise Unexpected("two rooms have the same id")
        return Sample(len(times), times)

    return one_round


async def join(prepared: Prepared, size: Size) -> OneRound:
    """People join a public room, one after another; each round has a new room."""
    creator, *people = await prepared.people(1 + size.local_joins)

    async def one_round(meter: Meter) -> Sample:
        room = await creator.create_room("To be joined")
        for person in people:
            await person.connection.open()
        times = []
        with meter:
            for person in people:
                start = time.perf_counter()
                await person.join(room)
                times.append(person.connection.arrived - start)
        members = await creator.members(room)
        if members != {creator.user_id, *(person.user_id for person in people)}:
            raise Unexpected(f"{len(members)} members where {len(people)} have joined")
        return Sample(len(times), times)

    return one_round


SCENARIOS = [
    Scenario("create_room", create, (latency("create_room", "Create a room", 50),)),
    Scenario("local_join", join, (latency("local_join", "Join a room of the same server", 50),)),
]
