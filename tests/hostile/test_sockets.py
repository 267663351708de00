"""Peers that are slow, endless, or somebody else, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trustme
from aiohttp import web
from structlog.testing import capture_logs

from federation.discovery import Discovery
from federation.srv import SrvRecord
from federation.transport import Https, Transport, WireRequest
from federation.well_known import WellKnownResponse, fetch_well_known
from homeserver.addresses import address_policy
from homeserver.clock import FakeClock
from homeserver.connections import Connections
from homeserver.egress import open_session, tls_context
from homeserver.errors import RemoteError
from homeserver.protocol.signing import generate_signing_key
from tests.federation.peer import Answer, Peer, running_peer
from tests.remote import Server

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


# Coming in.


@asynccontextmanager
async def listening(server: Server, **options: float) -> AsyncIterator[int]:
    """The server's federation API on a port of the loopback address."""
    runner = web.ServerRunner(
        Connections(server.dispatcher, access_log=None, **options), shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ended(reader: asyncio.StreamReader, within: float = 5.0) -> bytes:
    """All that comes until the other side closes."""
    async with asyncio.timeout(within):
        return await reader.read()


HEADS = [b"", b"G", b"GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: x\r\nX: ", b"\x16\x03\x01"]


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
async def test_a_connection_that_never_asks_is_closed(here: Server, head: bytes) -> None:
    async with listening(here, head_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        answer = await ended(reader)
        assert b" 200 " not in answer
        writer.close()


async def test_a_head_that_drips_is_not_waited_for(here: Server) -> None:
    async with listening(here, head_seconds=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(ended(reader))
        writer.write(b"GET /_matrix/federation/v1/version HTTP/1.1\r\n")
        while not closed.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait([closed], timeout=0.02)
        assert closed.done()
        writer.close()


async def test_who_asks_in_time_is_answered_for_as_long_as_it_takes(here: Server) -> None:
    async with listening(here, head_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            body = await reader.readuntil(b"}}")
            assert b"Inglenook" in body
            # Longer than a head may take: the connection has shown that it means to ask.
            await asyncio.sleep(0.3)
        writer.close()


async def test_a_body_that_drips_is_cut_off(here: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes in good time, and all of it never would."""
    monkeypatch.setattr("homeserver.web._BODY_PATIENCE", 0.3)
    async with listening(here) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
        )
        answered = asyncio.create_task(reader.readline())
        while not answered.done():
            writer.write(b" ")
            await asyncio.wait([answered], timeout=0.02)
        assert (await answered).startswith(b"HTTP/1.1 408")
        writer.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 99999999999", b""),
        (b"Content-Length: 20000000", b"x" * 1000),
    ],
)
async def test_a_body_that_says_it_is_too_large_is_not_read(
    here: Server, headers: bytes, body: bytes
) -> None:
    async with listening(here) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n" + body
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


async def chunked(writer: asyncio.StreamWriter, piece: bytes, count: int) -> None:
    for _ in range(count):
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()


async def test_a_body_without_an_end_is_cut_off(here: Server) -> None:
    async with listening(here) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sending = asyncio.create_task(chunked(writer, b"x" * MIB, 50))
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 413")
        sending.cancel()
        writer.transport.abort()


def bomb_of(mib: int, encoding: str) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return b"".join(packer.compress(b" " * MIB) for _ in range(mib)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_body_that_unpacks_to_more_is_not_unpacked(here: Server, encoding: str) -> None:
    bomb = bomb_of(20, encoding)
    assert len(bomb) < MIB
    async with listening(here) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\n"
            f'Authorization: X-Matrix origin=x,key="ed25519:1",sig=x\r\n'
            f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
        )
        writer.write(head.encode() + bomb)
        # It is read as the JSON it is not.
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 400")
        writer.transport.abort()


VERSION = b"GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = [
    VERSION + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    VERSION + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    VERSION + b"Content-Length: -1\r\n\r\n",
    VERSION + b"Content-Length: +5\r\n\r\nhello",
    VERSION.replace(b"1.1", b"9.9") + b"\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"\x00" * 1000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", SMUGGLED, ids=range(len(SMUGGLED)))
async def test_http_that_is_ambiguous_or_none_is_refused(here: Server, request_bytes: bytes) -> None:
    with capture_logs() as logged:
        async with listening(here) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes)
            answer = await ended(reader)
            assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 404"))
            assert answer.count(b"\r\nServer: ") == 1
            writer.close()
    assert not [line for line in logged if line["log_level"] == "error"]


# Going out.


@asynccontextmanager
async def answering(
    authority: trustme.CA,
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *names: str,
) -> AsyncIterator[int]:
    """A TLS server of bytes; it goes on answering until the test is over."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("peer.example",))).configure_cert(tls)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def asking(
    authority: trustme.CA, port: int, *, allowed: str = "127.0.0.0/8", timeout: float = 2.0
) -> AsyncIterator[Transport]:
    """Asks ``peer.example``, which SRV records put at a port of the loopback address."""
    tls = tls_context()
    authority.configure_trust(tls)

    async def nothing(hostname: str) -> WellKnownResponse:
        raise OSError

    async def srv(name: str) -> list[SrvRecord]:
        return [SrvRecord(0, 1, port, "127.0.0.1", 300)]

    discovery = Discovery(fetch_well_known=nothing, look_up_srv=srv, clock=FakeClock(), random=Random(1))
    session = open_session(address_policy(allowed=[allowed] if allowed else []), tls)
    exchange = Https(discovery, session).exchange
    key = generate_signing_key("a_test")
    try:
        yield Transport(server_name="here.example", key=key, exchange=exchange, timeout=timeout)
    finally:
        await discovery.close()
        await session.close()


async def refused_by(transport: Transport, max_bytes: int = MIB) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await transport.send("GET", "peer.example", "/x", max_bytes=max_bytes)
    return refused.value


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def test_an_answer_that_never_ends_is_cut_off(authority: trustme.CA) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
            sent += 65536

    async with answering(authority, endless) as port, asking(authority, port, timeout=20) as transport:
        assert "larger than" in str(await refused_by(transport))
    assert sent < 20 * MIB


async def test_an_answer_that_says_it_is_huge_or_unpacks_to_it_is_cut_off(authority: trustme.CA) -> None:
    bomb = bomb_of(100, "gzip")

    async def unpacks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
        await writer.drain()
        await reader.read()

    async with answering(authority, unpacks) as port, asking(authority, port, timeout=20) as transport:
        started = time.monotonic()
        await refused_by(transport)
        assert time.monotonic() - started < 5


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drips_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def says_to_go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("answer", [drips, drips_headers, says_to_go_on, is_silent])
async def test_an_answer_that_drips_is_not_waited_for(
    authority: trustme.CA, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    async with answering(authority, answer) as port, asking(authority, port, timeout=0.5) as transport:
        started = time.monotonic()
        assert "No answer within" in str(await refused_by(transport))
        assert time.monotonic() - started < 5


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"\x00" * 1000,
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "half a body": OK + b"Content-Length: 100\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "a length below zero": OK + b"Content-Length: -1\r\n\r\n{}",
    "bad chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "bad gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "deep nesting": OK + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "no JSON": OK + b"Content-Length: 3\r\n\r\nNaN",
    "bad UTF-8": OK + b'Content-Length: 3\r\n\r\n"\xff"',
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "a redirect to a file": b"HTTP/1.1 301 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an error in megabytes": b"HTTP/1.1 500 x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
    "a strange status": b"HTTP/1.1 999 x\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none_is_the_peers_fault(authority: trustme.CA, name: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWERS[name])
        await writer.drain()

    async with answering(authority, answer) as port, asking(authority, port) as transport:
        error = await refused_by(transport)
        assert error.server_name == "peer.example"
        assert len(error.message) < 10_000


async def test_a_certificate_for_another_name_is_refused(authority: trustme.CA) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 2\r\n\r\n{}")
        await writer.drain()

    for names in (("other.example",), ("*.peer.example",), ("127.0.0.1",), ("xpeer.example",)):
        async with answering(authority, answer, *names) as port, asking(authority, port) as transport:
            assert not (await refused_by(transport)).reachable
    async with answering(trustme.CA(), answer) as port, asking(authority, port) as transport:
        assert not (await refused_by(transport)).reachable


async def test_dns_that_points_into_our_own_network_is_not_followed(authority: trustme.CA) -> None:
    """The address is judged when the socket is opened, wherever it came from."""
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with answering(authority, counted) as port, asking(authority, port, allowed="") as transport:
        for name in ("peer.example", f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}",
                     f"[::ffff:127.0.0.1]:{port}", f"0.0.0.0:{port}", f"127.1:{port}",
                     f"0177.0.0.1:{port}", f"2130706433:{port}", f"0x7f000001:{port}"):  # fmt: skip
            with pytest.raises(RemoteError) as refused:
                await transport.send("GET", name, "/x")
            assert not refused.value.reachable
    assert connections == 0


NAMES = [
    "a..b",
    ".",
    "...",
    "a" * 64 + ".example",
    "a" * 255,
    "-",
    "peer.example:0",
    "peer.example:99999",
    "[::]",
    "[:::::::::]:1",
    "[1.2.3.4]",
    "user:pass@peer.example",
    "peer.example/path",
    "peer.example?x=y",
    "peer%2eexample",
    "peer.example\r\nX: y",
    "peer.example\x00",
    "p\u00e9er.example",
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_a_name_that_leads_nowhere_is_an_unreachable_server(authority: trustme.CA, name: str) -> None:
    async def nowhere(hostname: str) -> WellKnownResponse:
        raise OSError

    async def no_records(service: str) -> list[SrvRecord]:
        return []

    session = open_session(address_policy(), tls_context())
    discovery = Discovery(
        fetch_well_known=nowhere, look_up_srv=no_records, clock=FakeClock(), random=Random(1)
    )
    try:
        with pytest.raises(RemoteError) as refused:
            await Https(discovery, session).exchange(WireRequest("GET", name, "/x", {}, None, MIB))
        assert not refused.value.reachable
    finally:
        await session.close()


# Delegation.


@asynccontextmanager
async def fetching(
    authority: trustme.CA, *, allowed: str = "127.0.0.0/8"
) -> AsyncIterator[Callable[[Peer], Awaitable[WellKnownResponse]]]:
    tls = tls_context()
    authority.configure_trust(tls)
    session = open_session(address_policy(allowed=[allowed] if allowed else []), tls)
    try:
        yield lambda peer: fetch_well_known(session, f"127.0.0.1:{peer.port}")
    finally:
        await session.close()


async def test_a_well_known_that_redirects_to_itself_is_given_up(authority: trustme.CA) -> None:
    async with running_peer(authority, "127.0.0.1") as peer, fetching(authority) as fetch:
        peer.answer = lambda asked: Answer(302, headers={"Location": "/.well-known/matrix/server"})
        with pytest.raises(OSError, match="too often"):
            await fetch(peer)
        assert len(peer.asked) == 6


LOCATIONS = [
    "http://peer.example/",
    "file:///etc/passwd",
    "//[::1",
    "https://",
    "ftp://x/",
    "javascript:alert(1)",
    "https://user:pass@[::1]:1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "https://[fd00::1]/",
    "https://[::ffff:10.0.0.1]/",
]


@pytest.mark.parametrize("location", LOCATIONS)
async def test_a_well_known_does_not_lead_where_we_do_not_go(authority: trustme.CA, location: str) -> None:
    async with (
        running_peer(authority, "127.0.0.1") as peer,
        fetching(authority, allowed="127.0.0.1") as fetch,
    ):
        peer.answer = lambda asked: Answer(302, headers={"Location": location})
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - whatever it says, nobody was asked
            await fetch(peer)
        assert time.monotonic() - started < 5
        assert len(peer.asked) <= 6


async def test_a_well_known_of_megabytes_is_not_read(authority: trustme.CA) -> None:
    async with running_peer(authority, "127.0.0.1") as peer, fetching(authority) as fetch:
        peer.answer = lambda asked: Answer(200, b" " * (5 * MIB))
        with pytest.raises(OSError, match="too large"):
            await fetch(peer)
        bomb = gzip.compress(b" " * (20 * MIB))
        peer.answer = lambda asked: Answer(200, bomb, {"Content-Encoding": "gzip"})
        with pytest.raises(OSError):  # noqa: PT011 - too large or too well packed
            await fetch(peer)
