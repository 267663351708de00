"""What streams may cost, who may open them, and what is written down of them."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import aiohttp
import pytest
import structlog

from homeserver.config.live import Cors, Live
from homeserver.exposition import exposition
from homeserver.health import Metrics
from homeserver.log import configure_logging
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured
from tests.client_api.live_room import LiveRoom, bodies
from tests.followers import until

V3 = "/_matrix/client/v3"
PAGE, OTHER_PAGE = "https://app.example.org", "https://evil.example.com"
EVENT_BYTES = 50_000


@pytest.fixture
async def impatient_room(sqlite_database: Database) -> AsyncIterator[LiveRoom]:
    """A room on a server that waits half a second for readers."""
    async with account_server(sqlite_database, config=configured(live=Live(write_timeout=0.5))) as server:
        yield await LiveRoom.found(server)


async def open_and_read_nothing(server: AccountServer, head: str) -> socket.socket:
    """A connection with a small window, on which a stream was asked for."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    assert server.client.port is not None
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", server.client.port))
    await asyncio.get_running_loop().sock_sendall(connection, head.encode())
    return connection


async def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    try:
        async with asyncio.timeout(60):
            while piece := await asyncio.get_running_loop().sock_recv(connection, 65536):
                received += piece
    except ConnectionError:
        pass
    finally:
        connection.close()
    return received


async def send_until_closed(room: LiveRoom, transport: str) -> int:
    """Send large messages until the stream of the one who does not read is given up; their bytes."""
    open_streams = room.server.settings.live.by_transport
    await until(lambda: open_streams[transport] == 1, "the stream is open")
    async with asyncio.timeout(60):
        sent = 0
        while open_streams[transport]:
            await room.send("x" * EVENT_BYTES)
            sent += EVENT_BYTES
    return sent


HEADS = {
    "event_source": "GET {path}/sync/sse?{query} HTTP/1.1\r\nHost: a\r\n\r\n",
    "web_socket": (
        "GET {path}/stream?{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    ),
}


@pytest.mark.parametrize("transport", HEADS)
async def test_who_reads_too_slowly_is_let_go_at_little_cost_and_comes_back(
    impatient_room: LiveRoom, transport: str
) -> None:
    room, token = impatient_room, await impatient_room.token()
    query = f"since={token}&access_token={room.alice}"
    connection = await open_and_read_nothing(room.server, HEADS[transport].format(path=V3, query=query))
    tracemalloc.start()
    try:
        sent = await send_until_closed(room, transport)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await room.send("the last")
    received = await read_to_the_end(connection)

    # The room's newest events are kept in any case; a queue for the reader would hold them once more.
    assert peak < 1.6 * sent
    if transport == "web_socket":
        reason = b"reads too slowly"
        assert received.endswith(bytes((0x88, 2 + len(reason))) + struct.pack("!H", 4408) + reason)
    async with room.socket(since=token) as back:
        assert bodies(await back.next_update(), room.room)[-1] == "the last"


async def test_a_device_a_user_and_the_server_have_so_many_streams(sqlite_database: Database) -> None:
    live = Live(max_streams=4, max_streams_per_user=3, max_streams_per_device=2)
    async with (
        account_server(sqlite_database, config=configured(live=live)) as server,
        AsyncExitStack() as streams,
    ):
        room = await LiveRoom.found(server)
        phone, laptop = room.alice, await server.user("alice", device_id="LAPTOP")
        tablet, bob, charlie = (
            await server.user("alice", device_id="TABLET"),
            *[await server.user(name) for name in ("bob", "charlie")],
        )
        refusals = []
        for token in (phone, phone, laptop, tablet, bob, charlie):
            stream = await streams.enter_async_context(room.events(access_token=token))
            refusals.append(stream.response.status)
        error = await stream.response.json()
    assert refusals == [200, 200, 200, 429, 200, 429]
    assert error["errcode"] == "M_LIMIT_EXCEEDED"
    assert error["retry_after_ms"] > 0
    assert server.settings.live.by_transport.total() == 0


@pytest.fixture
async def narrow_room(sqlite_database: Database) -> AsyncIterator[LiveRoom]:
    """A room on a server where each device may have two streams, and notices late that one is gone."""
    live = Live(max_streams_per_device=2, event_source_heartbeat=120, web_socket_heartbeat=600)
    async with account_server(sqlite_database, config=configured(live=live)) as server:
        yield await LiveRoom.found(server)


async def test_a_stream_too_many_of_a_device_takes_the_place_of_its_oldest(narrow_room: LiveRoom) -> None:
    open_streams = narrow_room.server.settings.live.by_transport
    async with narrow_room.events() as oldest, narrow_room.socket() as older:
        await oldest.next_event()
        await older.next_update()
        async with narrow_room.events() as new, narrow_room.events() as newest:
            last_word = await oldest.next_event()
            assert (last_word.name, last_word.data["errcode"]) == ("error", "M_LIMIT_EXCEEDED")
            assert await oldest.is_over()
            assert await older.ending() == (4429, "replaced by a newer stream")
            assert open_streams.total() == 2
            for stream in (new, newest):
                await stream.next_event()
            await narrow_room.send("hello")
            for stream in (new, newest):
                assert bodies((await stream.next_event()).data, narrow_room.room) == ["hello"]
    await until(lambda: not open_streams.total(), "the streams are closed")


@pytest.mark.parametrize("transport", HEADS)
async def test_who_comes_back_many_times_at_once_is_never_locked_out(
    narrow_room: LiveRoom, transport: str
) -> None:
    token = await narrow_room.token()
    head = HEADS[transport].format(path=V3, query=f"access_token={narrow_room.alice}")
    gone = [await open_and_read_nothing(narrow_room.server, head) for _ in range(50)]
    open_streams = narrow_room.server.settings.live.by_transport
    await until(lambda: open_streams[transport] == 2, "streams are open")
    async with narrow_room.events(since=token) as stream:
        assert stream.response.status == 200
        await narrow_room.send("hello")
        assert bodies((await stream.next_event()).data, narrow_room.room) == ["hello"]
        assert open_streams.total() <= 2
    for connection in gone:
        connection.close()


async def test_there_are_no_streams_where_they_are_switched_off(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, config=configured(live=Live(enabled=False))) as server:
        room = await LiveRoom.found(server)
        for path in ("/sync/sse", "/stream"):
            assert await server.refused("GET", path, token=room.alice) == (404, "M_UNRECOGNIZED")


async def test_a_stream_ends_after_its_lifetime(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, config=configured(live=Live(lifetime=1.0))) as server:
        room = await LiveRoom.found(server)
        async with room.events() as stream:
            await stream.next_event()
            assert await stream.is_over()


async def test_pages_of_any_origin_are_let_in_by_default(live_room: LiveRoom) -> None:
    headers = {"Origin": OTHER_PAGE}
    async with live_room.events(headers=headers) as stream:
        assert stream.response.headers["Access-Control-Allow-Origin"] == "*"
        await stream.next_event()
    async with live_room.socket(headers=headers) as socket:
        assert "next_batch" in await socket.next()


@pytest.fixture
async def strict_room(sqlite_database: Database) -> AsyncIterator[LiveRoom]:
    """A room on a server for one web page."""
    config = configured(cors=Cors(allowed_origins=(PAGE,)))
    async with account_server(sqlite_database, config=config) as server:
        yield await LiveRoom.found(server)


@pytest.mark.parametrize("path", ["/sync", "/sync/sse", "/stream"])
async def test_the_page_that_is_allowed_is_let_in_on_every_transport(
    strict_room: LiveRoom, path: str
) -> None:
    headers = {"Origin": PAGE}
    if path == "/stream":
        async with strict_room.socket(headers=headers) as socket:
            assert "next_batch" in await socket.next()
    else:
        async with strict_room.events(path, headers=headers) as stream:
            assert stream.response.status == 200
            assert stream.response.headers["Access-Control-Allow-Origin"] == PAGE
            assert stream.response.headers["Vary"] == "Origin"


async def test_pages_of_other_origins_are_not(strict_room: LiveRoom) -> None:
    headers = {"Origin": OTHER_PAGE}
    async with strict_room.events("/sync", headers=headers) as stream:
        assert stream.response.status == 200
        assert "Access-Control-Allow-Origin" not in stream.response.headers
    async with strict_room.events(headers=headers) as stream:
        assert (stream.response.status, (await stream.response.json())["errcode"]) == (403, "M_FORBIDDEN")
        assert "Access-Control-Allow-Origin" not in stream.response.headers
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with strict_room.socket(headers=headers):
            pass
    assert refused.value.status == 403
    async with strict_room.server.client.options(f"{V3}/sync/sse", headers=headers) as preflight:
        assert "Access-Control-Allow-Origin" not in preflight.headers


async def test_programs_that_are_no_browsers_have_no_origin(strict_room: LiveRoom) -> None:
    async with strict_room.socket() as socket:
        assert "next_batch" in await socket.next()


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """What is written to the log meanwhile, at the most talkative level."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level, wrapping = root.handlers, root.level, structlog.get_config()
    configure_logging("debug", "json", stream)
    try:
        yield stream
    finally:
        root.handlers, root.level = handlers, level
        structlog.configure(**wrapping)


async def test_tokens_are_in_no_log_and_no_metric(live_room: LiveRoom) -> None:
    metrics = Metrics()
    metrics.watch_live_streams(live_room.server.settings.live.by_transport)
    with everything_logged() as log:
        async with live_room.events() as stream, live_room.socket() as socket:
            await stream.next_event()
            await socket.ask("send", room_id="!nowhere:x", event_type="m.x", content={})
            shown = (await exposition(metrics)).decode()
        async with live_room.events(since="nonsense") as stream:
            assert stream.response.status == 400
        async with asyncio.timeout(30):
            while live_room.server.settings.live.by_transport.total():
                await live_room.send("wakes those who are gone")
    lines = log.getvalue()

    assert 'inglenook_live_streams{transport="event_source"} 1.0' in shown
    assert 'inglenook_live_streams{transport="web_socket"} 1.0' in shown
    assert lines.count("live stream opened") == lines.count("live stream closed") == 2
    assert "@alice:a.org" in lines
    assert live_room.alice not in lines + shown


async def test_idle_streams_do_nothing(live_room: LiveRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are sent without a look at rooms or the database."""
    collected = []
    follow = live_room.server.reading.follow
    collect = follow._collect

    async def noted(request: object) -> object:
        collected.append(request)
        return await collect(request)  # type: ignore[arg-type]

    monkeypatch.setattr(follow, "_collect", noted)
    async with live_room.events(since=await live_room.token(), heartbeat_interval="1") as stream:
        assert [await stream.next() for _ in range(2)] == [None, None]
    assert len(collected) == 1
