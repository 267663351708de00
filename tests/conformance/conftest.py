"""A running server, its people, and an outsider to play with it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest

from tests.conformance.outsider import Outsider, running_outsider
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server, start_all, stop_all

Register = Callable[[str], Awaitable[Client]]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """One server for all tests of a module; it must not have made a mistake at the end."""
    server = inglenook(tmp_path_factory.mktemp("server"), authority)
    start_all([server])
    yield server
    stop_all([server])
    assert "Traceback" not in server.log.read_text(errors="replace"), server.log_tail(80)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
async def outsider(server: Server, authority: Authority) -> AsyncIterator[Outsider]:
    """A homeserver made up by the test; nothing that it did not expect may have been asked of it."""
    async with running_outsider(server, authority) as outsider:
        yield outsider
        assert not outsider.unexpected


@pytest.fixture
def register(http: aiohttp.ClientSession, server: Server) -> Register:
    """Registers people whose names no other test uses."""

    async def register(name: str) -> Client:
        client = Client(http, server)
        await client.register(f"{name}-{next(_numbers)}", "correct horse battery staple")
        return client

    return register
