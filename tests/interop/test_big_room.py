"""A room of many members, joined by our server from Synapse and by Synapse from ours."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop.client import Client
from tests.interop.conftest import NewUser, Pair, both_ways
from tests.interop.stories import agree_on_state, public_room
from tests.interop.synapse import why_no_synapse
from tests.processes import Server

pytestmark = pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))

MEMBERS = 150
_AT_ONCE = 10


@pytest.fixture(params=both_ways("big-room"))
def pair(request: pytest.FixtureRequest, ours: Server, theirs: Server) -> Pair:
    return Pair.told(request.param, ours, theirs)


async def crowd(new_user: NewUser, server: Server, room: str, count: int) -> list[Client]:
    """People of one server who join a room."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one() -> Client:
        async with free:
            person = await new_user(server, "member")
            await person.join(room)
            return person

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_a_room_of_many_is_used_at_once_and_then_known_whole(
    alice: Client, bob: Client, pair: Pair, new_user: NewUser
) -> None:
    room = await public_room(alice, name="Many")
    people = await crowd(new_user, pair.host, room, MEMBERS)
    everybody = {alice.user_id, *(person.user_id for person in people)}

    await bob.join(room, pair.host.server_name)
    hello = await bob.say(room, "hello")
    welcome = await people[-1].say(room, "welcome")
    topic = await alice.set_topic(room, "Whoever you are")
    await people[0].leave(room)

    await alice.hears(room, hello)
    await bob.hears(room, welcome)
    await agree_on_state(room, alice, bob, patience=60.0)
    assert await bob.members(room) == everybody - {people[0].user_id} | {bob.user_id}
    assert await bob.members(room) == await alice.members(room)
    assert topic in [event["event_id"] for event in await bob.history(room)]
