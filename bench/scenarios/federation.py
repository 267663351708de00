"""What comes from other servers: events in transactions, and big rooms to join."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.peer import PDUS_EACH, running_peer
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.generator.usage import database_bytes, state_bytes
from bench.scenarios.scenario import (
    OneRound,
    Sample,
    Scenario,
    growth,
    latency,
    later,
    state_growth,
    throughput,
)
from bench.scenarios.size import Size
from tests.processes import Authority
from tests.resident import Resident

#: Between two looks whether what a server takes in after it answered is there: this part of the time
#: it has taken so far, so that the looks are neither late nor a load of their own.
_LOOK_AFTER = 1 / 20
_PATIENCE = 300.0


async def events_taken_in(prepared: Prepared, size: Size) -> OneRound:
    """Transactions of ``PDUS_EACH`` messages, one after another, until a member sees the last message."""
    peer = await prepared.closing.enter_async_context(running_peer(prepared.site))
    (reader,) = await prepared.people(1)
    room = peer.room(members=10)
    await reader.join(room.room_id, through=peer.name)

    async def one_round(meter: Meter) -> Sample:
        transactions = peer.transactions(room, size.pdus // PDUS_EACH)
        sent = [event.event_id for each in transactions for event in each.events]
        with meter:
            start = time.perf_counter()
            for number, transaction in enumerate(transactions):
                await peer.deliver(transaction)
                if number:
                    # No more than two wait: Synapse gives up most of what waits where it is over a hundred.
                    before = transactions[number - 1].events[-1].event_id
                    await until_seen(reader, room.room_id, before, start)
            await until_seen(reader, room.room_id, sent[-1], start)
        if await _newest(reader, room.room_id, len(sent)) != set(sent):
            raise Unexpected("the newest events of the room are not those that were sent")
        return Sample(len(sent))

    return one_round


async def until_seen(reader: Person, room: str, event_id: str, start: float) -> None:
    """Wait until a member sees an event; ``start`` is when what is waited for began."""
    while not await reader.has_event(room, event_id):
        taken = time.perf_counter() - start
        if taken > _PATIENCE:
            raise Unexpected(f"an event is not there after {_PATIENCE:.0f} s")
        await asyncio.sleep(taken * _LOOK_AFTER)


async def _newest(reader: Person, room: str, count: int) -> set[str]:
    seen: set[str] = set()
    before = ""
    while len(seen) < count:
        events, before = await reader.page(room, before, limit=min(100, count - len(seen)))
        if not events:
            break
        seen.update(event["event_id"] for event in events)
    return seen


@dataclass(frozen=True)
class _BigRoom:
    """A room of another server that somebody has joined; how long that took, in seconds."""

    room_id: str
    member: Person
    usable: float
    complete: float


async def _joined(prepared: Prepared, resident: Resident, members: int, meter: Meter | None) -> _BigRoom:
    member = await Person.register(prepared.site)
    room, count = await asyncio.to_thread(resident.room, members)
    with meter or Meter(prepared.site):
        start = time.perf_counter()
        await member.join(room, through=resident.names[0])
        usable = member.connection.arrived - start
        known = await member.members(room)
        complete = member.connection.arrived - start
    if len(known) != count + 1 or member.user_id not in known:
        raise Unexpected(f"{len(known)} members in a room of {count} and the one who joined")
    return _BigRoom(room, member, usable, complete)


def _resident(prepared: Prepared) -> Resident:
    return prepared.closing.enter_context(Resident(Authority(prepared.site.authority)))


async def join_a_big_room(prepared: Prepared, size: Size) -> OneRound:
    """A person joins a room that another server has, and then asks who is in it."""

    async def one_round(meter: Meter) -> Sample:
        # A server of its own each time, so that none is busy with the rooms joined before.
        with Resident(Authority(prepared.site.authority)) as resident:
            joined = await _joined(prepared, resident, size.members, meter)
        return Sample(1, [joined.usable], [joined.complete])

    return one_round


async def membership_in_a_big_room(prepared: Prepared, size: Size) -> OneRound:
    """People of this server join, and leave again, a room with all the members of another."""
    site = prepared.site
    big = await _joined(prepared, _resident(prepared), size.members, None)
    people = await prepared.people(4)
    turns = itertools.cycle(people)
    state_before, changes = await state_bytes(site.database_url, site.software), 0

    async def one_round(meter: Meter) -> Sample:
        nonlocal changes
        before, times = await database_bytes(site.database_url), []
        with meter:
            for _ in range(size.membership_changes // 2):
                person = next(turns)
                for change in (person.join, person.leave):
                    start = time.perf_counter()
                    await change(big.room_id)
                    times.append(person.connection.arrived - start)
        known = await big.member.members(big.room_id)
        if len(known) != size.members + 1:
            raise Unexpected(f"{len(known)} members of {size.members + 1} after all who came have left")
        grown = await database_bytes(site.database_url) - before
        changes += len(times)
        of_state = (await state_bytes(site.database_url, site.software) - state_before) / changes
        return Sample(len(times), times, grown=grown, state_growth=of_state)

    return one_round


SCENARIOS = [
    Scenario(
        "pdus_in",
        events_taken_in,
        (throughput("pdus_in", "Events taken in from another server"),),
        most_rounds=3,
    ),
    Scenario(
        "remote_join",
        join_a_big_room,
        (
            latency("remote_join_usable", "Join another server's room of {members}, until usable", 50),
            later("remote_join_complete", "    until all its members are known"),
        ),
        warm_up=0,
        most_rounds=3,
    ),
    Scenario(
        "membership",
        membership_in_a_big_room,
        (
            latency("membership", "Join or leave a room of {members}", 50),
            growth("disk_membership", "Database growth, for each membership change in it"),
            state_growth("disk_membership_state", "    of which for its state"),
        ),
        most_rounds=3,
    ),
]
