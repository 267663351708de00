"""Three processes of our own server, and what a faulty network does to a room they share."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.conftest import Islands
from tests.faults.network import Fault
from tests.faults.stories import PATIENCE, lacking, room_of_all
from tests.interop.client import Client
from tests.interop.stories import hear_all
from tests.processes import Server

pytestmark = [pytest.mark.xdist_group("faults-three-of-ours"), pytest.mark.timeout(300)]


async def talk(person: Client, room: str, name: str, lines: int) -> list[str]:
    """Says lines and changes the topic; the ids of the events."""
    said = []
    for number in range(lines):
        said.append(await person.say(room, f"{name} {number}"))
        if number % 3 == 0:
            said.append(await person.set_topic(room, f"{name}'s topic {number}"))
    return said


async def all_talk(people: list[Client], room: str, lines: int = 6) -> list[str]:
    talks = [talk(person, room, f"speaker {n}", lines) for n, person in enumerate(people)]
    return [event_id for said in await asyncio.gather(*talks) for event_id in said]


async def until_tried(islands: Islands, source: Server, target: Server) -> None:
    """Wait until one server has tried to reach another."""
    before = islands.network.connections[source.server_name, target.server_name]
    deadline = time.monotonic() + PATIENCE
    while islands.network.connections[source.server_name, target.server_name] == before:
        assert time.monotonic() < deadline, f"{source.server_name} never tried"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_partition_heals(islands: Islands, people: list[Client], version: str) -> None:
    north, south, east = islands.servers
    room = await room_of_all(people, north, version)

    islands.network.partition(north, south, east)
    said = await all_talk(people, room)
    await until_tried(islands, north, south)
    islands.network.heal()
    said += await all_talk(people, room, lines=2)

    assert not await lacking(room, people, said)


async def test_bans_on_one_side_and_promotions_on_the_other(islands: Islands, people: list[Client]) -> None:
    alice, bob, carol = people
    north, south, east = islands.servers
    room = await room_of_all(people, north)

    islands.network.partition(north, south, east)
    banned = await alice.set_state(room, "m.room.member", {"membership": "ban"}, bob.user_id)
    said = await talk(bob, room, "a banned one who does not know", 3)
    said_by_carol = await talk(carol, room, "carol", 3)
    islands.network.heal()
    await asyncio.gather(alice.say(room, "Together again"), carol.say(room, "At last"))

    await alice.sees_membership(room, bob.user_id, "ban")
    await carol.sees_membership(room, bob.user_id, "ban")
    await bob.is_out(room)
    assert not await lacking(room, [alice, carol], said_by_carol)
    state = await alice.state(room)
    assert state["m.room.member", bob.user_id] == banned
    assert state["m.room.topic", ""] not in said


async def test_one_way_only(islands: Islands, people: list[Client]) -> None:
    alice, bob, _ = people
    north, south, _ = islands.servers
    room = await room_of_all(people, north)

    islands.network.from_to(south, north, Fault(cut=True))
    heard = await alice.say(room, "Can you hear me?")
    await bob.hears(room, heard)
    unheard = [await bob.say(room, f"I can, {n}") for n in range(3)]
    islands.network.heal()

    await hear_all(alice, room, [await bob.say(room, "And now?")])
    assert not await lacking(room, people, [heard, *unheard])


async def test_a_server_that_swallows_everything_delays_nobody_else(
    islands: Islands, people: list[Client]
) -> None:
    alice, bob, carol = people
    north, south, _ = islands.servers
    room = await room_of_all(people, north)

    islands.network.between(north, south, Fault(swallow=True))
    said = [await alice.say(room, f"For Carol {n}") for n in range(20)]
    await carol.hears(room, said[-1], patience=10)
    answer = await carol.say(room, "For Alice")
    await alice.hears(room, answer, patience=10)
    islands.network.heal()

    assert not await lacking(room, people, [*said, answer])
    assert bob.user_id in await alice.members(room)


async def test_connections_that_break_and_crawl(islands: Islands, people: list[Client]) -> None:
    north, south, east = islands.servers
    room = await room_of_all(people, north)
    islands.network.between(north, south, Fault(breaks=0.5))
    islands.network.between(south, east, Fault(breaks=0.3, delay=0.05))
    islands.network.between(north, east, Fault(delay=0.1))

    said = await all_talk(people, room, lines=8)
    islands.network.heal()
    said += await all_talk(people, room, lines=1)

    assert not await lacking(room, people, said)


async def test_killed_while_the_others_are_apart(islands: Islands, people: list[Client]) -> None:
    _, bob, carol = people
    north, south, east = islands.servers
    room = await room_of_all(people, north)

    islands.network.partition(north, south, east)
    said = await all_talk(people, room, lines=4)
    north.kill()
    islands.network.heal()
    said += await all_talk([bob, carol], room, lines=3)
    await asyncio.to_thread(north.start)
    said += await all_talk(people, room, lines=2)
    south.kill()
    await asyncio.to_thread(south.start)

    said += await all_talk(people, room, lines=1)
    assert not await lacking(room, people, said)


async def test_joining_while_the_host_is_cut_off_goes_through_another_server(
    islands: Islands, people: list[Client]
) -> None:
    alice, bob, carol = people
    north, south, east = islands.servers
    room = await room_of_all([alice, bob], north)

    islands.network.between(east, north, Fault(cut=True))
    await carol.join(room, north.server_name, south.server_name)
    await bob.sees_membership(room, carol.user_id, "join")
    said = [await carol.say(room, "Through the back door"), await bob.say(room, "Welcome")]
    islands.network.heal()

    await alice.sees_membership(room, carol.user_id, "join")
    said.append(await alice.say(room, "You as well"))
    assert not await lacking(room, people, said)
