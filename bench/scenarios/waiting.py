"""People who wait for a message with a long poll: one of them, and a room full of them."""

from __future__ import annotations

import asyncio
import time

import orjson

from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.scenarios.scenario import OneRound, Sample, Scenario, latency
from bench.scenarios.size import Size

_WAIT_MS = 30_000
#: For the long polls to have arrived in the server before somebody sends.
_BEFORE_SENDING = 0.03


class Listener:
    """Somebody who follows a room with long polls."""

    def __init__(self, person: Person, position: str) -> None:
        self.person = person
        self._position = position

    async def hear(self, room: str, text: str) -> float:
        """The time at which the reply with the message in it was here whole."""
        while True:
            reply = await self.person.sync(self._position, wait_ms=_WAIT_MS)
            arrived = self.person.connection.arrived
            told = orjson.loads(reply)
            self._position = told["next_batch"]
            joined = told.get("rooms", {}).get("join", {}).get(room, {})
            if any(
                event["content"].get("body") == text for event in joined.get("timeline", {}).get("events", [])
            ):
                return arrived


async def _told(speaker: Person, listeners: list[Listener], room: str, meter: Meter) -> list[float]:
    """One message: how long it took each to hear of it, in seconds from when it was sent."""
    text = f"At {time.perf_counter_ns()}"
    hearing = [asyncio.create_task(each.hear(room, text)) for each in listeners]
    await asyncio.sleep(_BEFORE_SENDING + len(listeners) / 300)
    with meter:
        start = time.perf_counter()
        await speaker.send(room, text)
        arrived = await asyncio.wait_for(asyncio.gather(*hearing), _WAIT_MS / 1000)
    return [at - start for at in arrived]


async def _audience(prepared: Prepared, count: int) -> tuple[Person, list[Listener], str]:
    speaker, *people = await prepared.people(count + 1)
    room = await speaker.create_room(f"An audience of {count}")
    for person in people:
        await person.join(room)
    return speaker, [Listener(person, await person.position()) for person in people], room


async def from_send_to_sync(prepared: Prepared, size: Size) -> OneRound:
    """From the moment one person sends to the moment the other has read the message."""
    speaker, listeners, room = await _audience(prepared, 1)

    async def one_round(meter: Meter) -> Sample:
        times = [(await _told(speaker, listeners, room, meter))[0] for _ in range(size.pings)]
        return Sample(len(times), times)

    return one_round


async def one_message_to_many(prepared: Prepared, size: Size) -> OneRound:
    """From the moment one person sends to the moment the last of all the others has read it."""
    speaker, listeners, room = await _audience(prepared, size.audience)

    async def one_round(meter: Meter) -> Sample:
        times = [max(await _told(speaker, listeners, room, meter)) for _ in range(size.announcements)]
        return Sample(len(times), times)

    return one_round


SCENARIOS = [
    Scenario(
        "send_to_sync",
        from_send_to_sync,
        (
            latency("send_to_sync_p50", "From send to the other's /sync, p50", 50),
            latency("send_to_sync_p95", "From send to the other's /sync, p95", 95),
        ),
    ),
    Scenario(
        "fan_out",
        one_message_to_many,
        (latency("fan_out", "One message to {audience} who long-poll, the last one served", 50),),
        most_rounds=3,
    ),
]
