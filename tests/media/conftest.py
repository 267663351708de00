"""Servers for tests of media."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest

from homeserver.storage import open_database
from tests.media.server import MediaServer, Town, media_server

#: Starts a server by its name, with settings.
StartServer: TypeAlias = Callable[..., Awaitable[MediaServer]]


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Town(http)


@pytest.fixture
async def start(town: Town, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers, each with a database and a folder of its own; one that runs already is restarted."""
    running: dict[str, AsyncExitStack] = {}

    async def start_server(name: str, **settings: Any) -> MediaServer:
        path = tmp_path / f"{name}.db"
        if name in running:
            await running[name].aclose()
        else:
            shutil.copy(sqlite_template, path)
        running[name] = AsyncExitStack()
        db = await open_database(str(path))
        running[name].push_async_callback(db.close)
        return await running[name].enter_async_context(media_server(town, name, db, tmp_path, **settings))

    yield start_server
    for closing in running.values():
        await closing.aclose()


@pytest.fixture
async def here(start: StartServer) -> MediaServer:
    return await start("here.example")


@pytest.fixture
async def there(start: StartServer) -> MediaServer:
    return await start("there.example")
