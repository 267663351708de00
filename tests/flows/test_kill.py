"""What was promised is kept, however the server ends: killed under load, told to stop, started twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("kill")

ROUNDS = 3
SENDERS = 16
ROOMS = 4
ENOUGH = 250


@dataclass
class Load:
    """Many senders at once, who remember what they were promised.

    ``promised`` is the event id by room and transaction, ``unanswered`` what was asked without an answer.
    """

    alice: Client
    rooms: list[str]
    promised: dict[tuple[str, str], str] = field(default_factory=dict)
    unanswered: list[tuple[str, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    async def send_on(self, name: str) -> None:
        """Send one message after the other until the server does not answer."""
        for number in itertools.count():
            key = self.rooms[number % len(self.rooms)], f"{name}-{number}"
            try:
                await self.send(*key)
            except aiohttp.ClientError:
                self.unanswered.append(key)
                return

    async def send(self, room: str, transaction: str) -> str:
        path = f"/rooms/{quote(room)}/send/m.room.message/{transaction}"
        reply = await self.alice.request("PUT", path, {"msgtype": "m.text", "body": transaction})
        self.promised[room, transaction] = reply["event_id"]
        return str(reply["event_id"])

    async def until(self, enough: int) -> None:
        """Wait until so many more were promised."""
        goal = len(self.promised) + enough
        deadline = time.monotonic() + 60
        while len(self.promised) < goal:
            assert time.monotonic() < deadline, f"{len(self.promised)} of {goal} sent in a minute"
            await asyncio.sleep(0.005)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, database_url: str) -> AsyncIterator[Server]:
    """A running server, on each storage engine."""
    server = inglenook(tmp_path / "server", authority, database=database_url)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def load(http: aiohttp.ClientSession, server: Server) -> Load:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    return Load(alice, [await alice.create_room(name=f"Room {number}") for number in range(ROOMS)])


async def test_kill_9_under_load_loses_nothing(load: Load, server: Server, database_url: str) -> None:
    await load.alice.sync()
    for round_number in range(ROUNDS):
        async with asyncio.TaskGroup() as senders:
            for sender in range(SENDERS):
                senders.create_task(load.send_on(f"{round_number}-{sender}"))
            await load.until(ENOUGH)
            server.kill()
        assert len(load.unanswered) == SENDERS
        check_integrity(database_url)

        await asyncio.to_thread(server.start)

        await everything_promised_is_there(load)
        await asking_again_doubles_nothing(load)
        await life_goes_on(load, f"after-{round_number}")
        load.unanswered.clear()


def check_integrity(database_url: str) -> None:
    """PostgreSQL sees to itself: only its client was killed."""
    if database_url.startswith("sqlite://"):
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite://"))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def everything_promised_is_there(load: Load) -> None:
    async def is_there(room: str, transaction: str, event_id: str) -> None:
        event = await load.alice.event(room, event_id)
        assert (event["event_id"], event["content"]["body"]) == (event_id, transaction)

    async with asyncio.TaskGroup() as readers:
        for (room, transaction), event_id in load.promised.items():
            readers.create_task(is_there(room, transaction, event_id))


async def asking_again_doubles_nothing(load: Load) -> None:
    """The same transactions give the same events, also those whose answer was lost."""
    before = dict(load.promised)
    for room, transaction in [*itertools.islice(reversed(before), 100), *load.unanswered]:
        event_id = await load.send(room, transaction)
        assert event_id == before.get((room, transaction), event_id)
    for room in load.rooms:
        events = await load.alice.history(room, page=100)
        said = Counter(event["content"]["body"] for event in events if event["type"] == "m.room.message")
        assert set(said.values()) == {1}
        assert said.keys() == {transaction for in_room, transaction in load.promised if in_room == room}
        ids = [event["event_id"] for event in events]
        assert len(ids) == len(set(ids))


async def life_goes_on(load: Load, transaction: str) -> None:
    """A token from before the kill syncs on, and what is sent now comes last."""
    latest = {
        room: await load.send(room, f"{transaction}-{number}") for number, room in enumerate(load.rooms)
    }
    reply = await load.alice.request("GET", "/sync", since=load.alice._since or "")
    joined = reply["rooms"]["join"]
    assert {room: joined[room]["timeline"]["events"][-1]["event_id"] for room in load.rooms} == latest
    load.alice._since = reply["next_batch"]
    again = await load.alice.request("GET", "/sync", since=reply["next_batch"])
    assert not again.get("rooms", {}).get("join")


async def test_sigterm_finishes_what_is_in_flight(
    load: Load, server: Server, http: aiohttp.ClientSession
) -> None:
    """Senders get their answers or no connection, long polls end, and the server is gone in seconds."""
    await load.alice.sync()
    since = load.alice._since or ""
    polls = [asyncio.create_task(long_poll(load.alice, since)) for _ in range(8)]
    async with asyncio.TaskGroup() as senders:
        for sender in range(SENDERS):
            senders.create_task(load.send_on(f"stop-{sender}"))
        await load.until(ENOUGH)
        waiting = [asyncio.create_task(long_poll(load.alice, "")) for _ in range(2)]
        started = time.monotonic()
        status = await asyncio.to_thread(server.stop)
        took = time.monotonic() - started
    await asyncio.gather(*polls, *waiting)

    assert status == 0
    assert took < 8
    assert "Traceback" not in server.log.read_text()

    await asyncio.to_thread(server.start)
    await everything_promised_is_there(load)
    await asking_again_doubles_nothing(load)


async def long_poll(person: Client, since: str) -> None:
    """Sync on, with as much patience as clients have, until the server is not there any more."""
    query: dict[str, Any] = {"timeout": 30_000, "since": since} if since else {"timeout": 30_000}
    while True:
        try:
            query["since"] = (await person.request("GET", "/sync", **query))["next_batch"]
        except aiohttp.ClientConnectorError:
            return


async def test_a_second_server_on_the_same_file_is_refused(tmp_path: Path, authority: Authority) -> None:
    first = inglenook(tmp_path / "first", authority)
    second = inglenook(tmp_path / "second", authority, database=f"sqlite://{first.folder}/inglenook.db")
    await asyncio.to_thread(first.start)
    try:
        ended = await asyncio.to_thread(
            subprocess.run, second.command, cwd=second.folder, capture_output=True, text=True, timeout=30
        )
        async with aiohttp.ClientSession() as http:
            alice = Client(http, first)
            await alice.register("alice", PASSWORD)
    finally:
        await asyncio.to_thread(first.stop)

    assert ended.returncode == 1
    assert f"{first.folder}/inglenook.db is in use by process" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
