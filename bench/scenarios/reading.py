"""What clients read: a first ``/sync``, one with nothing new, one with one message, older messages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import TALK, Prepared
from bench.scenarios.scenario import OneRound, Sample, Scenario, latency
from bench.scenarios.size import Size

_PAGE = 50
#: Devices that are told of the same message, one after another.
_DEVICES = 10
#: For what a server does after it answered a send to be over.
_AFTERMATH = 0.1


async def first_sync_of_some(prepared: Prepared, size: Size) -> OneRound:
    """A new device of somebody in ``size.rooms`` rooms of two, with some talk."""
    member, rooms = await prepared.member_of(size.rooms)
    return _first_syncs(member, set(rooms), size.initial_syncs, least_events=TALK)


async def first_sync_of_many(prepared: Prepared, size: Size) -> OneRound:
    """A new device of somebody who made ``size.many_rooms`` rooms."""
    creator, rooms = await prepared.creator_of(size.many_rooms)
    return _first_syncs(creator, set(rooms), 1, least_events=1)


def _first_syncs(person: Person, rooms: set[str], count: int, *, least_events: int) -> OneRound:
    async def one_round(meter: Meter) -> Sample:
        times = []
        for _ in range(count):
            # A device of its own each time, so that no reply kept for a repeated request is measured.
            device = await person.on_a_new_device()
            await device.connection.open()
            await asyncio.sleep(_AFTERMATH)
            with meter:
                start = time.perf_counter()
                reply = await device.sync()
            times.append(device.connection.arrived - start)
            joined = orjson.loads(reply)["rooms"]["join"]
            if joined.keys() != rooms:
                raise Unexpected(f"{len(joined)} rooms in the first sync of {len(rooms)}")
            if any(len(room["timeline"]["events"]) < least_events for room in joined.values()):
                raise Unexpected("a room of the first sync lacks its newest events")
            device.close()
        return Sample(count, times)

    return one_round


async def nothing_new(prepared: Prepared, size: Size) -> OneRound:
    """Somebody in ``size.rooms`` rooms asks what is new, and nothing is."""
    member, _ = await prepared.member_of(size.rooms)
    position = await member.position()

    async def one_round(meter: Meter) -> Sample:
        nonlocal position
        times = []
        with meter:
            for _ in range(size.incremental_syncs):
                start = time.perf_counter()
                told = orjson.loads(await member.sync(position))
                times.append(member.connection.arrived - start)
                position = told["next_batch"]
                if told.get("rooms", {}).get("join"):
                    raise Unexpected(f"news where there is none: {told}")
        return Sample(len(times), times)

    return one_round


async def one_message(prepared: Prepared, size: Size) -> OneRound:
    """Somebody in ``size.rooms`` rooms asks what is new, and one message is."""
    member, rooms = await prepared.member_of(size.rooms)
    devices = [await member.on_a_new_device() for _ in range(_DEVICES)]
    for device in devices:
        # What a server does once for a device that it sees for the first time is not measured.
        await device.position()
    creator, _ = await prepared.creator_of(size.rooms)
    turn = 0

    async def one_round(meter: Meter) -> Sample:
        nonlocal turn
        times = []
        for _ in range(max(1, size.incremental_syncs // _DEVICES)):
            position, room = await member.position(), rooms[turn % len(rooms)]
            turn += 1
            sent = await creator.send(room, f"The only message, {turn}")
            await asyncio.sleep(_AFTERMATH)
            replies = []
            with meter:
                for device in devices:
                    start = time.perf_counter()
                    replies.append(await device.sync(position))
                    times.append(device.connection.arrived - start)
            for reply in replies:
                _check_only_message(orjson.loads(reply), room, sent)
        return Sample(len(times), times)

    return one_round


def _check_only_message(told: dict[str, Any], room: str, event_id: str) -> None:
    joined = told["rooms"]["join"]
    events = [event["event_id"] for each in joined.values() for event in each["timeline"]["events"]]
    if list(joined) != [room] or events != [event_id]:
        raise Unexpected(f"one message was sent, and {len(events)} came in {len(joined)} rooms")


async def older_messages(prepared: Prepared, size: Size) -> OneRound:
    """Page by page back through a room of ``_PAGE`` messages for each page."""
    people = await prepared.people(8)
    room = await people[0].create_room("Much talk")
    for person in people[1:]:
        await person.join(room)
    share = -(-_PAGE * size.pages // len(people))

    async def talk(person: Person) -> set[str]:
        return {await person.send(room, f"Message {number} of {person.user_id}") for number in range(share)}

    sent = set().union(*await asyncio.gather(*map(talk, people)))

    async def one_round(meter: Meter) -> Sample:
        times, start_of_page = [], ""
        seen: set[str] = set()
        with meter:
            for _ in range(size.pages):
                start = time.perf_counter()
                events, start_of_page = await people[0].page(room, start_of_page, limit=_PAGE)
                times.append(people[0].connection.arrived - start)
                seen.update(event["event_id"] for event in events)
        if len(seen) != size.pages * _PAGE or not seen <= sent:
            raise Unexpected(f"{len(seen)} events on {size.pages} pages of {_PAGE}")
        return Sample(len(times), times)

    return one_round


SCENARIOS = [
    Scenario(
        "initial_sync_many",
        first_sync_of_many,
        (latency("initial_sync_many", "Initial sync of {many_rooms} rooms", 50),),
        most_rounds=3,
    ),
    Scenario(
        "initial_sync",
        first_sync_of_some,
        (latency("initial_sync", "Initial sync of {rooms} rooms", 50),),
    ),
    Scenario(
        "empty_sync",
        nothing_new,
        (latency("empty_sync", "/sync in {rooms} rooms with nothing new", 50),),
    ),
    Scenario(
        "one_message_sync",
        one_message,
        (latency("one_message_sync", "/sync in {rooms} rooms with one message", 50),),
    ),
    Scenario("messages_page", older_messages, (latency("messages_page", "/messages, a page of 50", 50),)),
]
