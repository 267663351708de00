"""The way out over HTTP: against a real server, within its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from homeserver.config.egress import Egress as Settings
from homeserver.egress import Egress, WaysOut, open_egress
from homeserver.errors import RemoteError


async def _echo(request: web.Request) -> web.Response:
    if request.content_type == "application/x-www-form-urlencoded":
        given: object = dict(await request.post())
    else:
        given = await request.json() if request.can_read_body else None
    answer = {"method": request.method, "given": given, "token": request.headers.get("Authorization")}
    return web.json_response(answer, status=int(request.query.get("status", "200")))


async def _text(request: web.Request) -> web.Response:
    return web.Response(text=request.query.get("text", ""))


async def _elsewhere(request: web.Request) -> web.Response:
    raise web.HTTPFound("/echo")


async def _silence(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _large(request: web.Request) -> web.Response:
    return web.Response(body=b"[" + b"1," * 600_000 + b"1]", content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/echo", _echo)
    for path, answer in (("/text", _text), ("/302", _elsewhere), ("/silence", _silence), ("/large", _large)):
        app.router.add_get(path, answer)
    async with TestServer(app, host="127.0.0.1") as server:
        yield server


@pytest.fixture
async def ways() -> AsyncIterator[WaysOut]:
    async with AsyncExitStack() as closing:
        yield open_egress(Settings(), closing)


async def test_json_goes_out_and_comes_back(server: TestServer, ways: WaysOut) -> None:
    url, headers = str(server.make_url("/echo")), {"Authorization": "Bearer x"}
    posted = await ways.own.post_json(url, {"a": 1}, headers=headers)
    assert posted == (200, {"method": "POST", "given": {"a": 1}, "token": "Bearer x"})
    put = await ways.own.put_json(f"{url}?status=404", [], headers=headers)
    assert put == (404, {"method": "PUT", "given": [], "token": "Bearer x"})
    assert await ways.own.get_json(url) == (200, {"method": "GET", "given": None, "token": None})
    formed = await ways.own.post_form(url, {"a": "ä&b"})
    assert formed == (200, {"method": "POST", "given": {"a": "ä&b"}, "token": None})


async def test_what_is_not_json_is_nothing(server: TestServer, ways: WaysOut) -> None:
    assert await ways.own.get_json(str(server.make_url("/text?text=hello"))) == (200, None)
    assert await ways.own.get_json(str(server.make_url("/text"))) == (200, None)


async def test_redirects_are_not_followed(server: TestServer, ways: WaysOut) -> None:
    status, _ = await ways.own.get_json(str(server.make_url("/302")))
    assert status == 302


async def test_private_addresses_that_strangers_name_are_not_contacted(
    server: TestServer, ways: WaysOut
) -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(RemoteError) as caught:
            await ways.strangers.get_json(f"http://{host}:{server.port}/echo")
        assert (caught.value.reachable, caught.value.server_name) == (False, host)
    async with AsyncExitStack() as closing:
        allowing = open_egress(Settings(allowed_addresses=(ip_network("127.0.0.0/8"),)), closing)
        status, _ = await allowing.strangers.get_json(str(server.make_url("/echo")))
    assert status == 200


@pytest.mark.parametrize(
    "url", ["", "ftp://a.org/", "https://", "a.org/x", "http://[::1", "file:///etc/passwd", "https://a:b/"]
)
async def test_what_is_no_web_address_is_not_asked(ways: WaysOut, url: str) -> None:
    with pytest.raises(RemoteError) as caught:
        await ways.own.get_json(url)
    assert (caught.value.reachable, caught.value.transient) == (False, False)


async def test_an_answer_is_bounded_in_time_size_and_values(server: TestServer, ways: WaysOut) -> None:
    with pytest.raises(RemoteError, match="No answer within") as late:
        await ways.own.get_json(str(server.make_url("/silence")), timeout=0.05)
    assert late.value.transient
    with pytest.raises(RemoteError, match="larger than"):
        await ways.own.get_json(str(server.make_url("/large")))
    with pytest.raises(RemoteError, match="too many values"):
        await ways.own.get_json(str(server.make_url("/large")), max_bytes=2_000_000)


async def test_a_server_that_is_not_there_may_be_there_later(ways: WaysOut, unused_tcp_port: int) -> None:
    with pytest.raises(RemoteError) as caught:
        await ways.own.get_json(f"http://127.0.0.1:{unused_tcp_port}/")
    assert (caught.value.reachable, caught.value.transient) == (False, True)


async def test_a_page_is_got_past_redirects_with_what_its_type_is_worth(
    server: TestServer, ways: WaysOut
) -> None:
    asked: list[tuple[str, int, str]] = []

    def permits(host: str, port: int, path: str) -> bool:
        asked.append((host, port, path))
        return True

    page = await ways.own.get_page(
        str(server.make_url("/302")),
        headers={},
        timeout=30,
        max_bytes=lambda kind: 10 if kind == "application/json" else 0,
        permits=permits,
    )
    assert (page.status, page.url) == (200, str(server.make_url("/echo")))
    assert (page.content_type, page.charset, page.body) == ("application/json", "utf-8", b'{"method":')
    assert not page.is_whole
    assert asked == [("127.0.0.1", server.port, "/302"), ("127.0.0.1", server.port, "/echo")]


async def test_a_page_is_got_from_where_it_may_be_got_only(server: TestServer, ways: WaysOut) -> None:
    async def get(way: Egress, url: str) -> None:
        await way.get_page(
            url,
            headers={},
            timeout=30,
            max_bytes=lambda _: 1000,
            permits=lambda host, port, path: path != "/echo",
        )

    url = str(server.make_url("/302"))
    with pytest.raises(RemoteError, match="not permitted"):
        await get(ways.own, url)
    with pytest.raises(RemoteError, match="credentials"):
        await get(ways.own, url.replace("127", "user:password@127"))
    with pytest.raises(RemoteError, match="may not be contacted"):
        await get(ways.strangers, url)
