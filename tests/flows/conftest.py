"""Running servers, and people on them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
import pytest_asyncio

from tests.databases import Cluster, fresh_postgres
from tests.flows.world import World, running_world
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

Register = Callable[[str], Awaitable[Client]]
PASSWORD = "correct horse battery staple"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """One server for all tests of a module."""
    server = inglenook(tmp_path_factory.mktemp("server"), authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Enough connections for everybody at once."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def register(http: aiohttp.ClientSession, server: Server) -> Register:
    """Registers people whose names no other test uses."""

    async def register(name: str) -> Client:
        client = Client(http, server)
        await client.register(f"{name}-{next(_numbers)}", PASSWORD)
        return client

    return register


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A town for all tests of a module, which must run in the module's loop."""
    async with running_world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres_world(
    tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster, postgres_template: str
) -> AsyncIterator[World]:
    """The same on PostgreSQL, which cannot keep every text that SQLite keeps."""
    async with (
        fresh_postgres(postgres_cluster, postgres_template) as database,
        running_world(tmp_path_factory.mktemp("world"), database) as world,
    ):
        yield world
