"""Servers for tests of federation."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from homeserver.storage import open_database
from tests.remote import Network, Server

#: Starts a server by its name.
StartServer: TypeAlias = Callable[..., Awaitable[Server]]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def start(network: Network, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers on one network, each with a database of its own."""
    databases = []

    async def start_server(name: str, **options: Any) -> Server:
        path = shutil.copy(sqlite_template, tmp_path / f"{name}.db")
        databases.append(await open_database(str(path)))
        return await Server.open(network, name, databases[-1], **options)

    yield start_server
    for server in network.servers.values():
        await server.close()
    for database in databases:
        await database.close()


@pytest.fixture
async def here(start: StartServer) -> Server:
    return await start("here.example")


@pytest.fixture
async def there(start: StartServer) -> Server:
    return await start("there.example")
