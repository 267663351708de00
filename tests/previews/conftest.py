"""Servers for tests of previews."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from homeserver.config.previews import UrlPreviews as Settings
from homeserver.storage import open_database
from tests.previews.server import INSIDE, PUBLIC, Names, PreviewServer, Site, preview_server, site_at

#: Starts the server that makes previews, with settings.
StartServer: TypeAlias = Callable[..., Awaitable[PreviewServer]]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A web site that anybody can reach."""
    async with site_at(PUBLIC) as site:
        yield site


@pytest.fixture
async def inside() -> AsyncIterator[Site]:
    """A web site that only those in the server's network can reach, with something to hide."""
    async with site_at(INSIDE) as site:
        site.put("/secret", "<title>secret</title>")
        site.put("/secret.png", b"\x89PNG\r\n\x1a\n", "image/png")
        yield site


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def start(
    site: Site, inside: Site, names: Names, sqlite_template: Path, tmp_path: Path
) -> AsyncIterator[StartServer]:
    async with AsyncExitStack() as closing:

        async def start_server(**settings: Any) -> PreviewServer:
            shutil.copy(sqlite_template, tmp_path / "here.db")
            db = await open_database(str(tmp_path / "here.db"))
            closing.push_async_callback(db.close)
            given = Settings(**{"ports": (site.port, inside.port), **settings})
            return await closing.enter_async_context(preview_server(db, tmp_path, names, given))

        yield start_server


@pytest.fixture
async def here(start: StartServer) -> PreviewServer:
    return await start()
