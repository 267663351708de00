"""A real server that is killed while it indexes what is said: all is found afterwards, and nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.flows.test_kill import check_integrity
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("kill")

ROUNDS, MESSAGES = 3, 60
PATIENCE_S = 60


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def say(client: Client, room: str, transaction: str, content: dict[str, Any]) -> str:
    path = f"/rooms/{quote(room)}/send/m.room.message/{transaction}"
    return str((await client.request("PUT", path, {"msgtype": "m.text", **content}))["event_id"])


async def found(client: Client, term: str) -> Counter[str]:
    """How often each event is found, over all pages."""
    events: Counter[str] = Counter()
    batch, wanted = "", {"search_term": term, "order_by": "recent", "filter": {"limit": 50}}
    while True:
        body = {"search_categories": {"room_events": wanted}}
        reply = await client.request("POST", f"/search{batch}", body)
        page = reply["search_categories"]["room_events"]
        events.update(one["result"]["event_id"] for one in page["results"])
        if "next_batch" not in page:
            return events
        batch = f"?next_batch={page['next_batch']}"


async def test_all_that_was_said_is_found_once_however_often_the_server_is_killed(
    http: aiohttp.ClientSession, server: Server, database_url: str
) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    room = await alice.create_room(preset="public_chat")
    otters: set[str] = set()
    edited: set[str] = set()
    for number in range(ROUNDS):
        texts = [f"otter {count} of {number}" for count in range(MESSAGES)]
        sent = await asyncio.gather(
            *(say(alice, room, f"{number}-{at}", {"body": text}) for at, text in enumerate(texts))
        )
        change = {"msgtype": "m.text", "body": "badger"}
        relation = {"rel_type": "m.replace", "event_id": sent[0]}
        await say(
            alice, room, f"edit-{number}", {"body": "*", "m.new_content": change, "m.relates_to": relation}
        )
        await alice.request("PUT", f"/rooms/{quote(room)}/redact/{sent[1]}/redact-{number}", {})
        # A search makes it index at once, and the kill comes into it, sooner or later.
        searching = asyncio.create_task(found(alice, "otter"))
        await asyncio.sleep(0.02 * number)
        server.kill()
        await asyncio.gather(searching, return_exceptions=True)
        check_integrity(database_url)
        await asyncio.to_thread(server.start)
        otters |= {*sent[2:]}
        edited.add(sent[0])
        async with asyncio.timeout(PATIENCE_S):
            assert await found(alice, "otter") == Counter(otters)
            assert await found(alice, "badger") == Counter(edited)
