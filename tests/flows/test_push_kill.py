"""Pushing by a real server, which is killed while it pushes: nothing is lost, hardly anything is repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server
from tests.push.gateway import Gateway, push_gateway
from tests.push.server import http_pusher

pytestmark = pytest.mark.xdist_group("kill")

ROUNDS = 3


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with push_gateway() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server that may push to this machine, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    path = server.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"push": {"allow_http": True}, "egress": {"allowed_addresses": ["127.0.0.0/8"]}}
    path.write_text(yaml.safe_dump(config))
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def test_what_was_promised_is_pushed_however_often_the_server_is_killed(
    http: aiohttp.ClientSession, server: Server, gateway: Gateway
) -> None:
    alice, bob = Client(http, server), Client(http, server)
    await alice.register("alice", PASSWORD)
    await bob.register("bob", PASSWORD)
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    await bob.request("POST", "/pushers/set", http_pusher(gateway.url))
    sent: list[str] = []
    for round_number in range(ROUNDS):
        gateway.open.clear()
        gateway.asked.clear()
        sent += [await alice.say(room, f"{round_number}: {number}") for number in range(10)]
        # One push is under way, and the others wait for it.
        await gateway.asked.wait()
        server.kill()
        gateway.open.set()
        await asyncio.to_thread(server.start)
        await gateway.until(partial(gateway.was_told, sent))
    await bob.read(room, sent[-1])
    await gateway.until(lambda: gateway.badges == [0])
    times = Counter(gateway.events)
    assert set(times) == set(sent)
    # What was under way when the server was killed: it never learned that it had arrived.
    assert sum(count - 1 for count in times.values()) <= ROUNDS
    assert list(dict.fromkeys(gateway.events)) == sent
