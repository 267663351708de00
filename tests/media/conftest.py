"""Servers for tests of media."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest

from homeserver.media.files import Files, FolderFiles
from homeserver.media.s3_bucket import Bucket
from homeserver.media.s3_files import S3Files
from homeserver.storage import open_database
from tests.media.server import MediaServer, Town, media_server
from tests.object_store import object_store, s3

__all__ = ["object_store", "s3"]

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


@pytest.fixture(params=["folder", "s3"])
async def files(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Files]:
    """A place for files of each kind; a test that uses it runs once on each."""
    async with AsyncExitStack() as closing:
        place: Files = FolderFiles(tmp_path / "files")
        if request.param == "s3":
            bucket = Bucket(request.getfixturevalue("s3"))
            await bucket.open()
            closing.push_async_callback(bucket.close)
            place = S3Files(bucket, "files")
        await place.open()
        closing.push_async_callback(place.close)
        yield place
