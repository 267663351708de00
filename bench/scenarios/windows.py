"""Sliding sync: the first window of an account, and the request after a message."""

from __future__ import annotations

import time

import orjson

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.scenarios.scenario import OneRound, Sample, Scenario, latency, later
from bench.scenarios.size import Size

_WINDOW = 20


async def of_few(prepared: Prepared, size: Size) -> OneRound:
    """Of somebody in ``size.few_rooms`` rooms of two, with some talk."""
    member, rooms = await prepared.member_of(size.few_rooms)
    return _looks(member, rooms[0], len(rooms), size.incremental_syncs // 6)


async def of_many(prepared: Prepared, size: Size) -> OneRound:
    """Of somebody who made ``size.many_rooms`` rooms."""
    creator, rooms = await prepared.creator_of(size.many_rooms)
    return _looks(creator, rooms[0], len(rooms), size.incremental_syncs // 6)


def _looks(person: Person, room: str, rooms: int, count: int) -> OneRound:
    shown = min(_WINDOW, rooms)

    async def look(meter: Meter) -> tuple[float, float]:
        device = await person.on_a_new_device()
        await device.connection.open()
        with meter:
            start = time.perf_counter()
            first = orjson.loads(await device.sliding_sync())
            after_first = device.connection.arrived - start
        await person.send(room, "One message")
        with meter:
            start = time.perf_counter()
            second = orjson.loads(await device.sliding_sync(first["pos"]))
            after_second = device.connection.arrived - start
        if len(first["rooms"]) != shown or list(second["rooms"]) != [room]:
            raise Unexpected(f"{len(first['rooms'])} rooms in a window of 20, then {list(second['rooms'])}")
        device.close()
        return after_first, after_second

    async def one_round(meter: Meter) -> Sample:
        times = [await look(meter) for _ in range(max(1, count))]
        return Sample(len(times), [first for first, _ in times], [second for _, second in times])

    return one_round


SCENARIOS = [
    Scenario(
        key,
        prepare,
        (
            latency(key, f"Sliding sync of 20 of {{{rooms}}} rooms, the first window", 50),
            later(f"{key}_next", f"Sliding sync of 20 of {{{rooms}}} rooms, after a message"),
        ),
    )
    for key, prepare, rooms in (("sliding_few", of_few, "few_rooms"), ("sliding_many", of_many, "many_rooms"))
]
