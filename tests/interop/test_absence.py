"""A server of ours is killed, misses a lot, and comes back to another one of ours."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.interop.client import Client
from tests.interop.conftest import NewUser
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server, start_all, stop_all

pytestmark = pytest.mark.xdist_group("interop-absence")

ROOMS = 30
EVENTS = 600
#: Far more than it takes, far less than the back-off would make of it.
PATIENCE = 60.0


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> tuple[Server, Server]:
    host = inglenook(tmp_path_factory.mktemp("host"), authority)
    guest = inglenook(tmp_path_factory.mktemp("guest"), authority)
    return host, guest


async def is_complete(bob: Client, room_id: str, said: list[str]) -> bool:
    """Whether a room's history has all that was said, in its order."""
    heard = [event["event_id"] for event in await bob.history(room_id, page=50)]
    return [event_id for event_id in reversed(heard) if event_id in said] == said


async def test_what_was_missed_comes_when_the_server_does(
    servers: tuple[Server, Server], new_user: NewUser
) -> None:
    host, guest = servers
    start_all(servers)
    try:
        alice, bob = await new_user(host, "alice"), await new_user(guest, "bob")
        rooms = [await alice.create_room(preset="public_chat") for _ in range(ROOMS)]
        for room_id in rooms:
            await bob.join(room_id, host.server_name)
        guest.kill()
        said: dict[str, list[str]] = {room_id: [] for room_id in rooms}
        for number in range(EVENTS):
            room_id = rooms[number % ROOMS]
            said[room_id].append(await alice.say(room_id, f"message {number}"))
        guest.start()
        began = time.monotonic()
        await bob.say(rooms[0], "I am back")
        for room_id in rooms:
            while not await is_complete(bob, room_id, said[room_id]):
                assert time.monotonic() - began < PATIENCE, f"{room_id} is not complete"
                await asyncio.sleep(0.2)
        after = await alice.say(rooms[1], "and on it goes")
        await bob.hears(rooms[1], after)
    finally:
        stop_all(servers)
