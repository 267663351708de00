"""A real server that is stopped and killed while devices follow a room over each transport.

However often it ends: every device has every event and message once, in order, once it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.followers import TRANSPORTS, Follower, until
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

#: A busy machine takes its time to start a server.
PATIENCE = 240.0
pytestmark = [pytest.mark.xdist_group("kill"), pytest.mark.timeout(PATIENCE + 60)]

ENDS = ("stop", "kill", "stop")
BETWEEN_ENDS = 40
MESSAGES = (len(ENDS) + 1) * BETWEEN_ENDS


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def insist(alice: Client, path: str, body: dict[str, object]) -> None:
    """Ask again, with the same transaction id, until there is an answer."""
    while True:
        try:
            await alice.request("PUT", path, body)
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)
        else:
            return


async def send_all(alice: Client, room: str, followers: list[Follower]) -> None:
    """Numbered messages to the room and to each of Bob's devices, not much faster than they are seen."""
    for number in range(MESSAGES):
        body = {"msgtype": "m.text", "body": str(number)}
        await insist(alice, f"/rooms/{quote(room)}/send/m.room.message/{number}", body)
        messages = {"messages": {"@bob:" + alice.user_id.partition(":")[2]: {"*": {"number": number}}}}
        await insist(alice, f"/sendToDevice/m.test/{number}", messages)
        await until(partial(all_have, followers, number - 40), "the followers keep up", PATIENCE)


def all_have(followers: list[Follower], count: int) -> bool:
    return all(len(each.to_device) >= count for each in followers)


async def history(alice: Client, room: str) -> list[str]:
    """The ids of all events of a room, the first one first."""
    ids: list[str] = []
    query: dict[str, str] = {"dir": "f", "limit": "1000"}
    while True:
        page = await alice.request("GET", f"/rooms/{quote(room)}/messages", **query)
        ids += [event["event_id"] for event in page["chunk"]]
        if not page.get("end"):
            return ids
        query["from"] = page["end"]


async def end_again_and_again(server: Server, followers: list[Follower]) -> None:
    """End the server and start it, each time after everybody has seen some more."""
    for number, way in enumerate(ENDS, 1):
        await until(partial(all_have, followers, number * BETWEEN_ENDS), "all have seen more", PATIENCE)
        if way == "kill":
            server.kill()
        else:
            assert await asyncio.to_thread(server.stop) == 0, (
                "it does not wait for streams to end by themselves"
            )
        await asyncio.to_thread(server.start)


def has_event(follower: Follower, room: str, event_id: str) -> bool:
    return event_id in follower.seen[room]


async def test_every_transport_goes_on_after_every_end(http: aiohttp.ClientSession, server: Server) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    room = await alice.create_room(preset="public_chat")
    followers: list[Follower] = []
    for make in TRANSPORTS.values():
        bob = Client(http, server)
        await (bob.login("bob", PASSWORD) if followers else bob.register("bob", PASSWORD))
        followers.append(make(http, server.client_url, bob.access_token))
    await bob.join(room)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(send_all(alice, room, followers))
        tasks.create_task(end_again_and_again(server, followers))
        for follower in followers:
            tasks.create_task(follower.follow_until(partial(all_have, [follower], MESSAGES), PATIENCE))

    sent = await history(alice, room)
    for follower in followers:
        await follower.follow_until(partial(has_event, follower, room, sent[-1]))
        assert follower.gaps == 0
        assert follower.seen[room] == sent
        assert [event["content"]["number"] for event in follower.to_device] == list(range(MESSAGES))
    await until(
        lambda: server.log.read_text().count("closed by the client") >= 2, "it notices that they are gone"
    )
    log = server.log.read_text()
    assert log.count("server stops") >= 2 * 2, "both streams ended as the server was told to stop, each time"
    assert not [follower for follower in followers if follower.access_token in log]
