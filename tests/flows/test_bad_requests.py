"""Hundreds of bad requests to one server: each gets the specification's answer, and none leaves a traceback.

The requests are in ``tests/flows/bad``.  What is not even HTTP is told here.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote, urlsplit

import pytest

from tests.flows.bad import Bad
from tests.flows.bad.bodies import BODIES
from tests.flows.bad.callers import CALLERS
from tests.flows.bad.events import EVENTS
from tests.flows.bad.media import MEDIA
from tests.flows.bad.people import PEOPLE
from tests.flows.bad.rooms import ROOMS
from tests.flows.bad.servers import SERVERS
from tests.flows.world import World
from tests.processes import Server

pytestmark = pytest.mark.xdist_group("bad-requests")
in_one_loop = pytest.mark.asyncio(loop_scope="module")

CLIENT_REQUESTS = (*BODIES, *CALLERS, *PEOPLE, *ROOMS, *EVENTS, *MEDIA)


def test_there_are_enough_of_them() -> None:
    assert len({(row.request, str(row.body), row.by) for row in CLIENT_REQUESTS}) >= 400
    assert len({(row.request, str(row.body), str(row.headers)) for row in SERVERS}) >= 60


@in_one_loop
@pytest.mark.parametrize("row", CLIENT_REQUESTS, ids=str)
async def test_a_client_is_answered_as_the_specification_says(world: World, row: Bad) -> None:
    got, answer, headers = await world.ask(row, world.server.client_url)
    trouble = world.new_trouble()

    assert got in row.answers, answer
    assert not trouble, trouble
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert isinstance(answer.get("error"), str) == ("errcode" in answer)


@in_one_loop
@pytest.mark.parametrize("row", SERVERS, ids=str)
async def test_a_server_is_answered_as_the_specification_says(world: World, row: Bad) -> None:
    got, answer, _ = await world.ask(row, f"https://{world.server.server_name}")
    trouble = world.new_trouble()

    assert got in row.answers, answer
    assert not trouble, trouble
    assert isinstance(answer["error"], str)


#: What a careless or hostile program might write to the port.
NOT_HTTP = {
    "words": b"hello\r\n\r\n",
    "zeros": bytes(4096),
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "raw bytes in the path": b"GET /_matrix/client/v3/profile/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": b"GET /_matrix/client/v3/profile/a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "an invented method": b"BREW /_matrix/client/versions HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version of HTTP": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "a header without a name": b"GET /_matrix/client/versions HTTP/1.1\r\n: x\r\n\r\n",
    "a header of 100 kB": b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
    "10,000 headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Many: x\r\n" * 10_000 + b"\r\n",
    "a length below zero": b"POST /_matrix/client/v3/login HTTP/1.1\r\nContent-Length: -5\r\n\r\n{}",
    "a length that is a word": b"POST /_matrix/client/v3/login HTTP/1.1\r\nContent-Length: ten\r\n\r\n{}",
    "two lengths": b"POST /_matrix/client/v3/login HTTP/1.1\r\n"
    b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
    "a length of 2**70": b"POST /_matrix/client/v3/login HTTP/1.1\r\nContent-Length: %d\r\n\r\n{}" % 2**70,
    "chunks that are none": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "gzip that is none": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\n"
    b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@in_one_loop
@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_what_is_not_http_is_refused(world: World, sent: bytes) -> None:
    answer = await said_to(world.server, sent)

    assert answer == b"" or answer.split()[1][:1] == b"4", answer[:300]
    assert not world.new_trouble()


@in_one_loop
async def test_callers_who_go_away_in_the_middle_do_no_harm(world: World) -> None:
    token = world.town.tokens["alice"].encode()
    head = b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + token + b"\r\n"
    await said_to(
        world.server, b"POST /_matrix/client/v3/createRoom" + head + b"Content-Length: 99\r\n\r\n{", 0.1
    )
    await said_to(world.server, b"GET /_matrix/client/v3/sync?timeout=30000" + head + b"\r\n", 0.1)

    assert not world.new_trouble()


@in_one_loop
async def test_the_server_is_as_it_was_afterwards(world: World) -> None:
    """Nothing of what was refused has happened, and what is right is still done."""
    room, alice = quote(world.town.names["room"]), world.town.tokens["alice"]
    base, headers = f"{world.server.client_url}/_matrix/client/v3", {"Authorization": f"Bearer {alice}"}
    send = f"{base}/rooms/{room}/send/m.room.message/afterwards"
    async with world.http.put(
        send, json={"msgtype": "m.text", "body": "still here"}, headers=headers
    ) as reply:
        assert reply.status == 200
    async with world.http.get(f"{base}/sync", headers=headers) as reply:
        synced = (await reply.json())["rooms"]["join"][world.town.names["room"]]
    assert synced["timeline"]["events"][-1]["content"]["body"] == "still here"
    async with world.http.get(f"{base}/rooms/{room}/joined_members", headers=headers) as reply:
        assert set((await reply.json())["joined"]) == {world.town.names["alice"], world.town.names["bob"]}
    assert not world.new_trouble()


async def said_to(server: Server, sent: bytes, patience: float = 1.0) -> bytes:
    """What a server answers to these bytes before it, or the caller, hangs up."""
    address = urlsplit(server.client_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(sent)
        await writer.drain()
        return await asyncio.wait_for(reader.read(4096), patience)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()
