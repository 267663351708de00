"""Messages from device to device arrive once and in order, however often the server is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("kill")

KILLS = 3
BETWEEN_KILLS = 60
MESSAGES = (KILLS + 1) * BETWEEN_KILLS


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def send_all(sender: Client, receiver: str) -> None:
    """Number the messages; ask again, with the same transaction id, until each is answered."""
    for number in range(MESSAGES):
        messages = {receiver: {"*": {"number": number}}}
        while True:
            try:
                await sender.request("PUT", f"/sendToDevice/m.test/{number}", {"messages": messages})
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


class Receiver:
    """A device that goes on with the last token whose reply it has."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.numbers: list[int] = []
        self.arrived = asyncio.Event()

    async def until(self, count: int) -> None:
        """Wait for so many messages in all."""
        while len(self.numbers) < count:
            self.arrived.clear()
            await self.arrived.wait()

    async def receive_all(self) -> None:
        since = ""
        while len(self.numbers) < MESSAGES:
            query = {"since": since} if since else {}
            try:
                reply = await self.client.request("GET", "/sync", timeout=1000, **query)
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
                continue
            since = reply["next_batch"]
            self.arrived.set()
            self.numbers += [event["content"]["number"] for event in reply["to_device"]["events"]]


async def test_two_devices_get_every_message_once_and_in_order(
    http: aiohttp.ClientSession, server: Server
) -> None:
    alice, phone, laptop = (Client(http, server) for _ in range(3))
    await alice.register("alice", PASSWORD)
    await phone.register("bob", PASSWORD)
    await laptop.login("bob", PASSWORD)
    receivers = [Receiver(phone), Receiver(laptop)]

    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        tasks.create_task(send_all(alice, phone.user_id))
        for receiver in receivers:
            tasks.create_task(receiver.receive_all())
        for kill in range(1, KILLS + 1):
            await receivers[0].until(kill * BETWEEN_KILLS)
            server.kill()
            await asyncio.to_thread(server.start)

    for receiver in receivers:
        assert receiver.numbers == list(range(MESSAGES))
