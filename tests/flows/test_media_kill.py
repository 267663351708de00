"""Whatever happens to the server, an upload it has acknowledged is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

_ENOUGH = 25


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[Server]:
    """A server that may be killed."""
    server = inglenook(tmp_path / "server", authority)
    server.start()
    yield server
    server.stop()


async def test_acknowledged_uploads_survive_a_kill(server: Server, http: aiohttp.ClientSession) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    acknowledged: dict[str, bytes] = {}
    enough = asyncio.Event()

    async def upload() -> None:
        while True:
            content = os.urandom(200_000)
            acknowledged[await alice.upload(content, "application/octet-stream")] = content
            if len(acknowledged) >= _ENOUGH:
                enough.set()

    uploads = [asyncio.create_task(upload()) for _ in range(4)]
    await enough.wait()
    server.kill()
    await asyncio.wait(uploads)
    await asyncio.to_thread(server.start)

    for mxc, content in acknowledged.items():
        assert (await alice.download(mxc))[0] == content
    local = server.folder / "media" / "local"
    assert not list((local / "incoming").iterdir())
