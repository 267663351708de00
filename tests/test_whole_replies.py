"""Replies made of ready-made bytes, as they look on the wire, and as aiohttp sends them to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp.test_utils import RawTestServer

from homeserver.clock import FakeClock
from homeserver.errors import limit_exceeded
from homeserver.ratelimit import RateLimiter
from homeserver.replies import Json, Reply
from homeserver.users.requester import Requester
from homeserver.web import Access, Dispatcher, Request, Route
from homeserver.whole_replies import header_lines

LARGE = b'"' + b"x" * 3_000_000 + b'"'


async def small(request: Request) -> Reply:
    return {"query": request.query, "body": request.body.decode()}


async def large(_: Request) -> Reply:
    return Json(LARGE, status=202)


async def busy(_: Request) -> Reply:
    raise limit_exceeded(1500)


async def nothing(_: Request) -> Reply:
    return Json(b"", status=204)


async def nobody(*_: Any) -> Requester:
    raise AssertionError("nobody is asked for who they are")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    routes = [
        Route("GET", "/small", small, Access.PUBLIC),
        Route("PUT", "/small", small, Access.PUBLIC),
        Route("GET", "/large", large, Access.PUBLIC),
        Route("GET", "/busy", busy, Access.PUBLIC),
        Route("GET", "/nothing", nothing, Access.PUBLIC),
    ]
    dispatcher = Dispatcher(
        routes,
        authenticate_user=nobody,
        authenticate_server=nobody,  # type: ignore[arg-type]
        rate_limiter=RateLimiter({}, FakeClock()),
    )
    async with RawTestServer(dispatcher) as server:
        assert server.port is not None
        yield server.port


class Connection:
    """A client that shows what was sent, and reads one reply after another from its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, *lines: str, body: str = "") -> None:
        self._writer.write(("\r\n".join((*lines, "", "")) + body).encode())

    async def reply(self, *, body: bool = True) -> tuple[str, Mapping[str, str], bytes]:
        """Status line, headers and body; without a ``body`` where the request was for the head alone."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert len(headers) == len(lines)
        length = int(headers.get("Content-Length", 0)) if body else 0
        return status, headers, await self._reader.readexactly(length)

    async def is_closed(self) -> bool:
        return await self._reader.read(1) == b""

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def connection(port: int) -> AsyncIterator[Connection]:
    opened = await Connection.open(port)
    yield opened
    opened.close()


async def test_a_reply_has_its_headers_once(connection: Connection) -> None:
    connection.send("GET /small?a=b HTTP/1.1", "Host: a")
    status, headers, body = await connection.reply()
    assert (status, body) == ("HTTP/1.1 200 OK", b'{"query":{"a":"b"},"body":""}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert parsedate_to_datetime(headers["Date"]).tzinfo is not None


async def test_a_connection_is_answered_in_order_and_stays_open(connection: Connection) -> None:
    for number in range(5):
        connection.send("PUT /small HTTP/1.1", "Host: a", "Content-Length: 1", body=str(number))
    replies = [await connection.reply() for _ in range(5)]
    assert [body[-3:] for _, _, body in replies] == [b'%d"}' % number for number in range(5)]


async def test_those_who_close_or_speak_http_1_0_get_the_same(port: int) -> None:
    names: list[set[str]] = []
    for head in (
        ("GET /small HTTP/1.1", "Host: a"),
        ("GET /small HTTP/1.1", "Host: a", "Connection: close"),
        ("GET /small HTTP/1.0", "Host: a"),
    ):
        connection = await Connection.open(port)
        connection.send(*head)
        status, headers, body = await connection.reply()
        assert (status.split(" ", 1)[1], body) == ("200 OK", b'{"query":{},"body":""}')
        assert "Connection: close" not in head or headers["Connection"] == "close"
        assert head == ("GET /small HTTP/1.1", "Host: a") or await connection.is_closed()
        names.append(set(headers) - {"Connection"})
        connection.close()
    assert names[0] == names[1] == names[2]


async def test_a_head_is_that_of_the_reply_without_its_body(connection: Connection) -> None:
    connection.send("HEAD /large HTTP/1.1", "Host: a")
    status, headers, _ = await connection.reply(body=False)
    assert (status, headers["Content-Length"]) == ("HTTP/1.1 202 Accepted", str(len(LARGE)))
    connection.send("GET /large HTTP/1.1", "Host: a")
    assert (await connection.reply())[2] == LARGE


async def test_an_error_carries_its_own_header(connection: Connection) -> None:
    connection.send("GET /busy HTTP/1.1", "Host: a")
    status, headers, body = await connection.reply()
    assert (status, headers["Retry-After"]) == ("HTTP/1.1 429 Too Many Requests", "2")
    assert b'"retry_after_ms":1500' in body


async def test_a_status_without_a_body_has_none(connection: Connection) -> None:
    connection.send("GET /nothing HTTP/1.1", "Host: a")
    status, headers, _ = await connection.reply()
    assert (status, "Content-Length" in headers) == ("HTTP/1.1 204 No Content", False)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\x00b", "ä"])
def test_what_would_be_more_than_one_header_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a header"):
        header_lines({"Access-Control-Allow-Origin": value})
