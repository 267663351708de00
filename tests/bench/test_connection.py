"""The generator's own HTTP client, against a server that answers byte by byte what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench.generator.connection import Connection, Unexpected

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[Connection]:
    """A connection to a server that answers every request with these pieces, each in a packet of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = Connection(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield connection
    finally:
        connection.close()
        server.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r", b"\nhe", b"llo"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", b"llo\r\n0\r", b"\n", b"\r\n"],
    ],
)
async def test_a_reply_is_read_however_it_is_cut(pieces: list[bytes]) -> None:
    async with answering(*pieces) as connection:
        assert [await connection.request("GET", "/") for _ in range(2)] == [b"hello", b"hello"]


async def test_what_looks_like_the_end_of_chunks_may_be_within_one() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async with answering(head + b"e\r\nit seems\r\n\r\n", b"so\r\n0\r\n\r\n") as connection:
        assert await connection.request("GET", "/") == b"it seems\r\n\r\nso"


async def test_only_a_200_is_an_answer() -> None:
    async with answering(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}") as connection:
        with pytest.raises(Unexpected, match="GET /here: 403"):
            await connection.request("GET", "/here")


async def test_a_connection_that_the_server_ends_is_opened_again() -> None:
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"

    async with answering(reply) as connection:
        assert [await connection.request("GET", "/") for _ in range(2)] == [b"1", b"1"]
