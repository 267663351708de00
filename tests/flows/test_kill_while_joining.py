"""A server that is killed while it fetches the members of a room it has joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.flows.test_kill import check_integrity
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server
from tests.resident import Resident

pytestmark = pytest.mark.xdist_group("kill")

MEMBERS = 600
#: How long after it may go on the server is killed again, in seconds: whatever it is doing then.
INSTANTS = (0.0, 0.4, 0.8, 1.2)


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def test_kill_9_leaves_a_part_of_the_state_or_all_of_it(
    http: aiohttp.ClientSession, authority: Authority, server: Server, database_url: str
) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    with Resident(authority) as resident:
        room, members = await asyncio.to_thread(resident.room, MEMBERS)
        resident.hold()
        await alice.join(room, resident.names[0])
        said = await alice.say(room, "before")
        for instant in INSTANTS:
            server.kill()
            check_integrity(database_url)
            await asyncio.to_thread(server.start)
            await alice.say(room, f"after {instant}")
            resident.release()
            await asyncio.sleep(instant)
            resident.hold()
        resident.release()

        everybody = await alice.members(room)
        assert len(everybody) == members + 1
        assert alice.user_id in everybody
        state = await alice.state(room)
        assert sum(type_ == "m.room.member" for type_, _ in state) == members + 1
        texts = [
            event["content"]["body"]
            for event in await alice.history(room, pages=1, page=50)
            if event["type"] == "m.room.message"
        ]
        assert sorted(texts) == sorted(["before", *(f"after {instant}" for instant in INSTANTS)])
        assert (await alice.event(room, said))["content"]["body"] == "before"
        server.kill()
        await asyncio.to_thread(server.start)
        assert await alice.members(room) == everybody
