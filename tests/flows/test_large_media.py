"""Large files pass through the server in pieces, and not through its memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from homeserver.config.media import S3
from tests.flows.conftest import PASSWORD
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.object_store import object_store, s3
from tests.processes import Authority, Server

__all__ = ["object_store", "s3"]

_PIECE = bytes(range(256)) * 1024
#: 200 MB.
_PIECES = 763
_MAX_GROWTH = 24 * 1024 * 1024


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(_PIECES):
        yield _PIECE


@pytest.fixture(params=["folder", "s3"])
def server(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Iterator[Server]:
    """A server that keeps files in a folder, or in a bucket."""
    settings: dict[str, Any] = {"media": {"max_upload_bytes": _PIECES * len(_PIECE)}}
    if request.param == "s3":
        bucket: S3 = request.getfixturevalue("s3")
        known = {key: value for key, value in asdict(bucket).items() if value is not None}
        settings["media"]["s3"] = known
    server = inglenook(tmp_path / "server", authority, settings=settings)
    server.start()
    yield server
    server.stop()


async def test_a_large_file_goes_up_and_down_in_pieces(server: Server, http: aiohttp.ClientSession) -> None:
    alice = Client(http, server)
    await alice.register("alice", PASSWORD)
    headers = {"Authorization": f"Bearer {alice.access_token}", "Content-Type": "video/mp4"}

    async def upload(body: AsyncIterator[bytes] | bytes) -> str:
        url = f"{server.client_url}/_matrix/media/v3/upload"
        async with http.post(url, data=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            return str((await reply.json())["content_uri"]).removeprefix("mxc://")

    async def download(mxc: str) -> str:
        url, digest = f"{server.client_url}/_matrix/client/v1/media/download/{mxc}", hashlib.sha256()
        async with http.get(url, headers=headers) as reply:
            async for piece in reply.content.iter_any():
                digest.update(piece)
        return digest.hexdigest()

    await download(await upload(_PIECE))
    before = server.resident_bytes()
    digest = await download(await upload(pieces()))

    assert digest == hashlib.sha256(_PIECE * _PIECES).hexdigest()
    assert server.resident_bytes() - before < _MAX_GROWTH
