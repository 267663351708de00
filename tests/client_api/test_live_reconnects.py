"""Whatever cuts the connection, on whatever transport: each event comes once, in its order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest

from homeserver.config.live import Live
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured, segment
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.followers import TRANSPORTS, Follower, until

CUTS = 100


@pytest.fixture
async def patient_server(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A server that lets a device open as many streams as the cuts of a test leave behind."""
    live = Live(max_streams_per_device=1_000, max_streams_per_user=1_000)
    async with account_server(sqlite_database, config=configured(live=live)) as server:
        yield server


async def room_of(server: AccountServer, token: str) -> str:
    status, reply = await server.call("POST", "/createRoom", {}, token=token)
    assert status == 200
    return str(reply["room_id"])


async def send(server: AccountServer, token: str, room: str, number: int) -> None:
    path = f"/rooms/{segment(room)}/send/m.room.message/{number}"
    status, reply = await server.call("PUT", path, {"msgtype": "m.text", "body": str(number)}, token=token)
    assert status == 200, reply


async def history(server: AccountServer, token: str, room: str) -> list[str]:
    """The ids of all events of a room, the first one first."""
    ids: list[str] = []
    start = ""
    while True:
        _, page = await server.call(
            "GET", f"/rooms/{segment(room)}/messages?dir=f&limit=1000{start}", token=token
        )
        ids += [event["event_id"] for event in page["chunk"]]
        if not page.get("end"):
            return ids
        start = f"&from={page['end']}"


async def send_until_cut(
    server: AccountServer, token: str, room: str, proxy: CuttingProxy, follower: Follower
) -> None:
    """Send on and on, not much faster than the follower gets it."""
    for number in itertools.count():
        await send(server, token, room, number)
        # More than one connection ever lets through would never arrive as one response.
        await until(partial(keeps_up, follower, room, number, proxy), "messages arrive")
        if proxy.cuts >= CUTS:
            return


def keeps_up(follower: Follower, room: str, number: int, proxy: CuttingProxy) -> bool:
    return number <= len(follower.seen[room]) + 20 or proxy.cuts >= CUTS


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_hundred_cuts_lose_nothing_and_double_nothing(
    patient_server: AccountServer, transport: str
) -> None:
    alice = await patient_server.user("alice")
    room = await room_of(patient_server, alice)
    port = patient_server.client.port
    assert port is not None
    async with cutting_proxy(port, seed=2108) as proxy, aiohttp.ClientSession() as http:
        follower = TRANSPORTS[transport](http, f"http://127.0.0.1:{port}", alice)
        await follower.follow_until(lambda: room in follower.seen)
        follower.base_url = proxy.base_url
        async with asyncio.TaskGroup() as both:
            both.create_task(send_until_cut(patient_server, alice, room, proxy, follower))
            both.create_task(follower.follow_until(lambda: proxy.cuts >= CUTS))
        sent = await history(patient_server, alice, room)
        follower.base_url = f"http://127.0.0.1:{port}"
        await follower.follow_until(lambda: sent[-1] in follower.seen[room])

    assert follower.gaps == 0
    assert proxy.cuts >= CUTS
    assert follower.seen[room] == sent
