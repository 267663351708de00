"""A real server that is killed while delayed events are due: each of them is sent, and none twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("kill")

ROUNDS, EVENTS = 3, 40
PATIENCE_S = 60
_EVENTS, _API = "/delayed_events", "unstable/org.matrix.msc4140"


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def scheduled(client: Client) -> int:
    return len((await client.request("GET", _EVENTS, api=_API))["delayed_events"])


async def said(client: Client, room: str) -> Counter[str]:
    """How often each text was said."""
    path = f"/rooms/{quote(room)}/messages?dir=b&limit=1000"
    chunk = (await client.request("GET", path))["chunk"]
    return Counter(one["content"]["body"] for one in chunk if one["type"] == "m.room.message")


async def test_each_is_sent_once_however_often_the_server_is_killed(
    http: aiohttp.ClientSession, server: Server
) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    room = await alice.create_room(preset="public_chat")
    expected: Counter[str] = Counter()
    for number in range(ROUNDS):
        for count in range(EVENTS):
            body = f"{number}: {count}"
            path = f"/rooms/{quote(room)}/send/m.room.message/{number}-{count}"
            delay = f"?org.matrix.msc4140.delay={1500 + count}"
            await alice.request("PUT", path + delay, {"msgtype": "m.text", "body": body})
            expected[body] += 1
        async with asyncio.timeout(PATIENCE_S):
            # Some have been sent and others not: the server is at it.
            while await scheduled(alice) == EVENTS:
                continue
        server.kill()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE_S):
            while await scheduled(alice):
                continue
        assert await said(alice, room) == expected
