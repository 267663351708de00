"""One keep-alive HTTP/1.1 connection that costs the load generator as little as possible.

Only what the servers measured here send: a status line, headers, and a body with a length or in
chunks.  No redirects, no compression, no TLS, no pipelining.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit


class Unexpected(Exception):
    """The server answered something else than the benchmark asked for; no figure is valid then."""


class Connection:
    """Requests go out one after another and each reply is read whole before the next."""

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url)
        assert address.hostname is not None
        self._host, self._port = address.hostname, address.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, target: str, *, token: str = "", body: dict[str, Any] | None = None
    ) -> bytes:
        """The body of the reply, which must be a 200.  ``target`` is already percent-encoded."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        payload = b"" if body is None else json.dumps(body).encode()
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        status, answer, keep = await _read_reply(reader)
        if not keep:
            self.close()
        if status != 200:
            raise Unexpected(f"{method} {target}: {status} {answer[:300]!r}")
        return answer

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection can be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    keep = b"\r\nconnection: close" not in head
    if b"\r\ntransfer-encoding: chunked" in head:
        return status, await _read_chunks(reader), keep
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if not found:
        raise Unexpected(f"a reply without a length: {head!r}")
    return status, await reader.readexactly(int(rest.partition(b"\r\n")[0])), keep


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)
