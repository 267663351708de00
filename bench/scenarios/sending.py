"""Messages sent: by one after another, by many in many rooms, and by many in one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.generator.usage import database_bytes
from bench.scenarios.scenario import OneRound, Sample, Scenario, growth, throughput
from bench.scenarios.size import Size

CONNECTIONS = 32


async def on_one_connection(prepared: Prepared, size: Size) -> OneRound:
    """One person, one message after the other."""
    people = await prepared.people(1)
    return _sending(prepared, people, [await people[0].create_room("Alone")], size.messages)


async def in_many_rooms(prepared: Prepared, size: Size) -> OneRound:
    """``CONNECTIONS`` people at once, each in a room of their own."""
    people = await prepared.people(CONNECTIONS)
    rooms = await asyncio.gather(*(person.create_room("A room each") for person in people))
    return _sending(prepared, people, rooms, size.messages)


async def in_one_room(prepared: Prepared, size: Size) -> OneRound:
    """``CONNECTIONS`` people at once, all in the same room."""
    people = await prepared.people(CONNECTIONS)
    room = await people[0].create_room("All together")
    for person in people[1:]:
        await person.join(room)
    return _sending(prepared, people, [room] * CONNECTIONS, size.messages)


def _sending(prepared: Prepared, people: Sequence[Person], rooms: Sequence[str], messages: int) -> OneRound:
    """Each person sends an equal share of the round's messages, one after another, in their room."""
    share = messages // len(people)

    async def send_all(person: Person, room: str) -> set[str]:
        return {await person.send(room, f"Message {number} of {person.user_id}") for number in range(share)}

    async def one_round(meter: Meter) -> Sample:
        before = await database_bytes(prepared.site.database_url)
        with meter:
            sent = await asyncio.gather(*map(send_all, people, rooms))
        distinct = set().union(*sent)
        if len(distinct) != share * len(people):
            raise Unexpected(f"{share * len(people)} messages sent, {len(distinct)} event ids given")
        newest, _ = await people[0].page(rooms[0], limit=share)
        if not {event["event_id"] for event in newest} <= distinct or len(newest) != share:
            raise Unexpected("the newest events of the room are not those sent last")
        grown = await database_bytes(prepared.site.database_url) - before
        return Sample(len(distinct), grown=grown)

    return one_round


SCENARIOS = [
    Scenario("send_1", on_one_connection, (throughput("send_1", "Messages sent, 1 connection"),)),
    Scenario(
        "send_32_rooms",
        in_many_rooms,
        (
            throughput("send_32_rooms", "Messages sent, 32 connections in 32 rooms"),
            growth("disk_message", "Database growth, for each message"),
        ),
    ),
    Scenario(
        "send_one_room",
        in_one_room,
        (throughput("send_one_room", "Messages sent, 32 connections in one room"),),
    ),
]
