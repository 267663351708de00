"""Two running servers, and a person on each: alice where the room is made, bob on the other."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.interop.synapse import synapse
from tests.processes import Authority, Server, start_all, stop_all

NewUser = Callable[[Server, str], Awaitable[Client]]
PASSWORD = "correct horse battery staple"
_numbers = itertools.count()


@dataclass(frozen=True)
class Pair:
    """``host`` is the server rooms are made on, ``guest`` the one that joins them."""

    host: Server
    guest: Server

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.host, self.guest

    @classmethod
    def told(cls, way: str, ours: Server, theirs: Server) -> Pair:
        """The pair for one of ``both_ways``."""
        return cls(ours, theirs) if way == "we host" else cls(theirs, ours)


def both_ways(group: str) -> list[Any]:
    """Parameters that tell a story in both directions.

    Each direction is a group of its own, so that two workers share them; each starts its own servers.
    """
    return [
        pytest.param(way, marks=pytest.mark.xdist_group(f"{group}-{way.replace(' ', '-').lower()}"))
        for way in ("we host", "Synapse hosts")
    ]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running() -> Iterator[Callable[..., None]]:
    """Starts servers, which are stopped when the module's tests are done."""
    started: list[Server] = []

    def run(*servers: Server) -> None:
        start_all(servers)
        started.extend(servers)

    yield run
    stop_all(started)


@pytest.fixture(scope="module")
def ours(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    server = inglenook(tmp_path_factory.mktemp("inglenook"), authority)
    running(server)
    return server


@pytest.fixture(scope="module")
def another(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    """A second server of ours."""
    server = inglenook(tmp_path_factory.mktemp("another"), authority)
    running(server)
    return server


@pytest.fixture(scope="module")
def theirs(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    """A Synapse."""
    server = synapse(tmp_path_factory.mktemp("synapse"), authority)
    running(server)
    return server


@pytest.fixture
async def new_user() -> AsyncIterator[NewUser]:
    """Registers people whose names no other test uses."""
    async with aiohttp.ClientSession() as http:

        async def register(server: Server, name: str) -> Client:
            client = Client(http, server)
            await client.register(f"{name}-{next(_numbers)}", PASSWORD)
            return client

        yield register


@pytest.fixture
async def alice(new_user: NewUser, pair: Pair) -> Client:
    return await new_user(pair.host, "alice")


@pytest.fixture
async def bob(new_user: NewUser, pair: Pair) -> Client:
    return await new_user(pair.guest, "bob")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Adds the end of the servers' logs to the report of a failure."""
    report = yield
    if report.failed:
        for server in _servers_of(item):
            report.sections.append((f"log of {server.software} {server.server_name}", server.log_tail()))
    return report


def _servers_of(item: pytest.Item) -> list[Server]:
    """The servers a test was given: by themselves, as a pair, or with a network between them."""
    found: list[Server] = []
    for value in getattr(item, "funcargs", {}).values():
        found += [value] if isinstance(value, Server) else getattr(value, "servers", ())
    return found
