"""What is measured at every point: a send, a state change, an incremental sync, a join, a page."""

from __future__ import annotations

import asyncio
import itertools
import time

import orjson

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.growth.scene import Scene
from bench.scenarios.scenario import Sample

#: For what a server does after its answer to be over.
_AFTERMATH = 0.1

_numbers = itertools.count()


async def send(scene: Scene, count: int, meter: Meter) -> Sample:
    """Messages, one after another."""
    times, sent = [], set()
    with meter:
        for _ in range(count):
            start = time.perf_counter()
            sent.add(await scene.speaker.send(scene.room, f"Message {next(_numbers)}"))
            times.append(scene.speaker.connection.arrived - start)
    if len(sent) != count:
        raise Unexpected("two messages have the same id")
    return Sample(count, times)


async def state(scene: Scene, count: int, meter: Meter) -> Sample:
    """The room's topic, changed again and again."""
    times, sent = [], set()
    with meter:
        for _ in range(count):
            start = time.perf_counter()
            content = {"topic": f"Topic {next(_numbers)}"}
            sent.add(await scene.speaker.set_state(scene.room, "m.room.topic", content))
            times.append(scene.speaker.connection.arrived - start)
    if len(sent) != count:
        raise Unexpected("two changes have the same id")
    return Sample(count, times)


async def sync(scene: Scene, count: int, meter: Meter) -> Sample:
    """What is new after one message."""
    position, times = await scene.listener.position(), []
    for _ in range(count):
        sent = await scene.speaker.send(scene.room, f"News {next(_numbers)}")
        await asyncio.sleep(_AFTERMATH / 5)
        with meter:
            start = time.perf_counter()
            told = orjson.loads(await scene.listener.sync(position))
            times.append(scene.listener.connection.arrived - start)
        position = told["next_batch"]
        joined = told.get("rooms", {}).get("join", {})
        if [event["event_id"] for room in joined.values() for event in room["timeline"]["events"]] != [sent]:
            raise Unexpected(f"one message was sent, and {told} came")
    return Sample(count, times)


async def join(scene: Scene, count: int, meter: Meter) -> Sample:
    """People join, and leave again unmeasured; at most as many as there are."""
    coming, times = scene.joins[:count], []
    with meter:
        for person, room in coming:
            start = time.perf_counter()
            await person.join(room)
            times.append(person.connection.arrived - start)
    for person, room in coming:
        await person.leave(room)
    return Sample(len(coming), times)


async def page(scene: Scene, count: int, meter: Meter) -> Sample:
    """Back through the room, page by page."""
    times, before, seen = [], "", 0
    with meter:
        for _ in range(count):
            start = time.perf_counter()
            events, before = await scene.speaker.page(scene.room, before)
            times.append(scene.speaker.connection.arrived - start)
            seen += len({event["event_id"] for event in events})
    if seen != 50 * count:
        raise Unexpected(f"{seen} events on {count} pages of 50")
    return Sample(count, times)


EVERYWHERE = {"send": send, "state": state, "sync": sync, "join": join, "page": page}


async def calm() -> None:
    """Let what goes on after an answer come to an end."""
    await asyncio.sleep(_AFTERMATH)
