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
    """Whatever the server has begun is answered, long polls too, and it is gone in seconds."""
    bob = Client(http, server)
    await bob.register("bob", PASSWORD)
    since = (await bob.request("GET", "/sync"))["next_batch"]
    polls = [bob.request("GET", "/sync", since=since, timeout=30_000) for _ in range(8)]
    waiting = asyncio.gather(*polls)
    async with asyncio.TaskGroup() as senders:
        for sender in range(SENDERS):
            senders.create_task(load.send_on(f"stop-{sender}"))
        await load.until(ENOUGH)
        started = time.monotonic()
        status = await asyncio.to_thread(server.stop)
        took = time.monotonic() - started

    assert status == 0
    assert took < 8
    assert not any(reply.get("rooms") for reply in await waiting)
    assert "Traceback" not in server.log.read_text()

    await asyncio.to_thread(server.start)
    await everything_promised_is_there(load)
    assert not await messages(load) & set(load.unanswered), "sent, and not answered"
    await asking_again_doubles_nothing(load)


async def messages(load: Load) -> set[tuple[str, str]]:
    """What was said, by room."""
    return {
        (room, event["content"]["body"])
        for room in load.rooms
        for event in await load.alice.history(room, page=100)
        if event["type"] == "m.room.message"
    }


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
