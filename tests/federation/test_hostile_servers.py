"""Servers that mean no good, over real sockets: what they do costs a bounded amount of time and memory."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
import pytest
import trustme

from federation import well_known
from federation.client import FederationClient
from federation.discovery import Destination
from federation.transport import Https, Transport
from federation.well_known import fetch_well_known
from homeserver.addresses import address_policy
from homeserver.egress import open_session, tls_context
from homeserver.errors import RemoteError
from homeserver.protocol.signing import SigningKey
from tests.federation.peer import Answer, running_peer

KEY = SigningKey("ed25519:k", bytes(range(32)))
NAME = "bad.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Writes: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = tls_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def raw_server(authority: trustme.CA, write: Writes) -> AsyncIterator[int]:
    """Reads a request's head and then does what ``write`` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await write(writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


class There:
    """Finds everybody at one port."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.found = [Destination(host, port, NAME, NAME)]

    async def destinations(self, server_name: str) -> list[Destination]:
        return self.found


async def ask(
    authority: trustme.CA, tls: ssl.SSLContext, write: Writes, *, timeout: float = 20.0
) -> RemoteError:
    async with (
        raw_server(authority, write) as port,
        open_session(address_policy(allowed=["127.0.0.0/8"]), tls) as session,
    ):
        client = client_of(session, There(port))
        with pytest.raises(RemoteError) as caught:
            await client.request("GET", NAME, "/x", timeout=timeout, max_bytes=100_000)
    return caught.value


def client_of(session: aiohttp.ClientSession, there: There) -> FederationClient:
    return FederationClient(
        Transport(server_name="us.example", key=KEY, exchange=Https(there, session).exchange)
    )


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"2000\r\n" + b" " * 8192 + b"\r\n")
        await writer.drain()


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    while True:
        writer.write(b"X-More: of the same\r\n" * 100)
        await writer.drain()


async def one_endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"X-Long: ")
    while True:
        writer.write(b"x" * 8192)
        await writer.drain()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 50000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def not_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()


async def half(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b'Content-Length: 500\r\n\r\n{"a":')
    await writer.drain()


async def bad_gzip(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!")
    await writer.drain()


@pytest.mark.parametrize(
    "write", [endless_body, endless_headers, one_endless_header, not_http, half, bad_gzip]
)
async def test_nonsense_ends_at_once(authority: trustme.CA, tls: ssl.SSLContext, write: Writes) -> None:
    async with asyncio.timeout(15):
        error = await ask(authority, tls, write)
    assert error.message


async def test_a_trickle_ends_in_time(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    error = await ask(authority, tls, trickle, timeout=0.3)
    assert (error.reachable, error.transient) == (False, True)


async def test_a_bomb_is_not_unpacked(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    """A few dozen kilobytes that stand for 64 megabytes: at no time is much of that in memory."""
    packed = gzip.compress(b" " * 64 * 1024 * 1024)

    async def bomb(writer: asyncio.StreamWriter) -> None:
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        writer.write(OK + head + packed)
        await writer.drain()

    tracemalloc.start()
    try:
        error = await ask(authority, tls, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "larger than" in error.message
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "2130706433", "0x7f000001", "127.1", "::ffff:127.0.0.1", "::1", "::"]
)
async def test_ways_to_write_an_address_here_do_not_lead_here(tls: ssl.SSLContext, host: str) -> None:
    """What is judged is the address that the socket is opened to, whatever it was written as."""
    connected = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, open_session(address_policy(), tls) as session:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RemoteError) as caught:
            await client_of(session, There(port, host)).request("GET", NAME, "/x")
    assert not caught.value.reachable
    assert not connected.is_set()


async def test_a_wish_to_be_left_alone_is_read(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    async with (
        running_peer(authority, NAME) as peer,
        open_session(address_policy(allowed=["127.0.0.0/8"]), tls) as session,
    ):
        client = client_of(session, There(peer.port))
        peer.answers(
            Answer(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 5}, {"Retry-After": "7"}),
            Answer(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 5}),
            Answer(429, b"<html>", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
            Answer(500, {"errcode": "M_UNKNOWN", "retry_after_ms": 5}),
        )
        asked = []
        for _ in range(4):
            with pytest.raises(RemoteError) as caught:
                await client.request("GET", NAME, "/x")
            asked.append(caught.value.retry_after_ms)
    assert asked == [7000, 5, None, 5]


@pytest.mark.parametrize("write", [endless_body, endless_headers, trickle, bad_gzip, not_http])
async def test_a_well_known_document_costs_no_more(
    authority: trustme.CA, tls: ssl.SSLContext, write: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(well_known, "TIMEOUT_SECONDS", 1)
    async with (
        raw_server(authority, write) as port,
        open_session(address_policy(allowed=["127.0.0.0/8"]), tls) as session,
        asyncio.timeout(10),
    ):
        with pytest.raises(OSError, match=r"asked|too large"):
            await fetch_well_known(session, f"127.0.0.1:{port}")
