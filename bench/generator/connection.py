"""One keep-alive HTTP/1.1 connection that costs the load generator as little as possible.

Only what the servers measured here send: a status line, headers, and a body with a length or in
chunks.  No redirects, no compression, no pipelining.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, cast
from urllib.parse import urlsplit

import orjson


class Unexpected(Exception):
    """The server answered something else than the benchmark asked for; no figure is valid then."""


class Connection:
    """Requests go out one after another and each reply is read whole before the next."""

    def __init__(self, base_url: str, *, tls: ssl.SSLContext | None = None) -> None:
        address = urlsplit(base_url)
        assert address.hostname is not None
        self._host, self._port, self._tls = address.hostname, address.port or 80, tls
        self._wire: _Wire | None = None
        self._tail = f" HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
        #: When the last reply was here whole, in seconds of ``time.perf_counter``.
        self.arrived = 0.0

    async def request(self, method: str, target: str, *, authorization: str = "", body: Any = None) -> bytes:
        """The body of the reply, which must be a 200.

        ``target`` is already percent-encoded; ``authorization`` is the header's value; ``body``
        becomes JSON, and bytes go out as they are.
        """
        payload = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        proof = f"Authorization: {authorization}\r\n" if authorization else ""
        head = f"{method} {target}{self._tail}{proof}Content-Length: {len(payload)}\r\n\r\n"
        status, answer = await self._exchange(head.encode() + payload)
        if status != 200:
            raise Unexpected(f"{method} {target}: {status} {answer[:300]!r}")
        return answer

    async def open(self) -> None:
        """Connect now rather than with the first request."""
        if self._wire is None or not self._wire.usable:
            loop = asyncio.get_running_loop()
            _, self._wire = await loop.create_connection(_Wire, self._host, self._port, ssl=self._tls)

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._wire is None or not self._wire.usable:
            await self.open()
        assert self._wire is not None
        reply = await self._wire.exchange(request)
        self.arrived = self._wire.arrived
        return reply


class _Wire(asyncio.Protocol):
    """A TCP connection with at most one request under way."""

    usable = False
    arrived = 0.0
    _pieces: list[bytes]
    _end: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own class, which is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None
        self._forget_reply()
        self.usable = True

    def exchange(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body."""
        assert self._reply is None, "a request is under way"
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._reply

    def close(self) -> None:
        self.usable = False
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed the connection: {error}")

    def _fail(self, why: str) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(Unexpected(why))

    def data_received(self, data: bytes) -> None:
        if self._status == 0:
            head, found, data = b"".join([*self._pieces, data]).partition(b"\r\n\r\n")
            if not found:
                self._pieces = [head]
                return
            self._pieces = []
            self._read_head(head.lower())
        self._pieces.append(data)
        self._missing -= len(data)
        if self._chunked:
            self._end = (self._end + data[-5:])[-5:]
            # What looks like the end may be within a chunk; then decoding finds it is not.
            if self._end == b"0\r\n\r\n" and (body := _from_chunks(b"".join(self._pieces))) is not None:
                self._done(body)
        elif self._missing <= 0:
            self._done(b"".join(self._pieces))

    def _read_head(self, head: bytes) -> None:
        self._status = int(head[9:12])
        self._keep = b"\r\nconnection: close" not in head
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        if not self._chunked:
            _, found, rest = head.partition(b"\r\ncontent-length:")
            if not found:
                self._fail(f"a reply without a length: {head!r}")
                return
            self._missing = int(rest.partition(b"\r\n")[0])

    def _done(self, body: bytes) -> None:
        self.arrived = time.perf_counter()
        reply, self._reply = self._reply, None
        status, keep = self._status, self._keep
        self._forget_reply()
        if not keep:
            self.close()
        if reply is not None and not reply.done():
            reply.set_result((status, body))

    def _forget_reply(self) -> None:
        self._status = self._missing = 0
        self._keep, self._chunked = True, False
        self._pieces = []
        self._end = b""


def _from_chunks(data: bytes) -> bytes | None:
    """The body that came in chunks; None while the last chunk is not there."""
    chunks: list[bytes] = []
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        size = int(data[position:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(chunks)
        position = end + 2 + size
        if position + 2 > len(data):
            return None
        chunks.append(data[end + 2 : position])
        position += 2
