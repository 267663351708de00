"""Two of our servers and a Synapse: apart for a while, with writes on all sides, and together again.

``PARTITION_SECONDS`` in the environment makes the time apart longer than the suite has for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Islands, MakeIslands, ours
from tests.faults.stories import lacking, room_of_all
from tests.interop.client import Client, Refused
from tests.interop.synapse import synapse, why_no_synapse
from tests.processes import Authority, Server

pytestmark = [
    pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse())),
    pytest.mark.xdist_group("faults-with-synapse"),
    pytest.mark.timeout(600),
]

APART_SECONDS = float(os.environ.get("PARTITION_SECONDS", "10"))


def theirs(folder: Path, authority: Authority, public_port: int) -> Server:
    return synapse(folder, authority, public_port=public_port)


@pytest.fixture(scope="module")
def islands(make_islands: MakeIslands) -> Islands:
    """Two of ours and a Synapse."""
    return make_islands(ours, ours, theirs)


async def live(person: Client, room: str, seconds: float, seed: int) -> list[str]:
    """For a while, do what people with power 50 in a room do; the ids of the messages that were accepted."""
    chance = random.Random(seed)
    said: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        match chance.randrange(6):
            case 0:
                await person.set_topic(room, f"{person.user_id} says {len(said)}")
            case 1:
                stranger = f"@stranger-{chance.randrange(4)}:elsewhere.example"
                await person.ban(room, stranger)
            case 2:
                await person.set_state(
                    room, "org.example.note", {"n": len(said)}, f"note {chance.randrange(3)}"
                )
            case _:
                said.append(await person.say(room, f"{person.user_id} says {len(said)}"))
        await asyncio.sleep(chance.random() * 0.3)
    return said


async def all_live(people: list[Client], room: str, seconds: float) -> list[str]:
    lives = [live(person, room, seconds, seed) for seed, person in enumerate(people)]
    return [event_id for said in await asyncio.gather(*lives) for event_id in said]


@pytest.mark.parametrize("host", [0, 2], ids=["we host", "Synapse hosts"])
async def test_apart_and_together_again(islands: Islands, people: list[Client], host: int) -> None:
    servers = islands.servers
    people = [people[host], *(person for n, person in enumerate(people) if n != host)]
    room = await room_of_all(people, servers[host])

    islands.network.partition(*servers)
    said = await all_live(people, room, APART_SECONDS)
    islands.network.heal()
    said += await all_live(people, room, 1)

    assert not await lacking(room, people, said)


async def test_a_moderator_is_banned_here_and_bans_there(islands: Islands, people: list[Client]) -> None:
    alice, bob, carol = people
    north, south, east = islands.servers
    room = await room_of_all(people, north)

    islands.network.partition(north, south, east)
    await alice.ban(room, carol.user_id)
    topic = await carol.set_topic(room, "Carol's topic")
    for number in range(3):
        await carol.say(room, f"I may still talk, {number}")
    with pytest.raises(Refused):
        await carol.ban(room, alice.user_id)
    note = await bob.say(room, "What is going on?")
    islands.network.heal()
    await asyncio.gather(alice.say(room, "Carol is out"), bob.say(room, "I see"))

    for person in (alice, bob):
        await person.sees_membership(room, carol.user_id, "ban")
    await carol.is_out(room)
    assert not await lacking(room, [alice, bob], [note])
    assert (await bob.state(room)).get(("m.room.topic", "")) != topic
