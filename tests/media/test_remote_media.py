"""Media of other servers: fetched once, kept within bounds, and whatever a hostile one answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import AddrInfoType, web
from yarl import URL

from federation.media import MAX_REDIRECTS, OpenUrl, open_url
from homeserver.addresses import address_policy
from homeserver.media.headers import boundary
from tests.federation.test_multipart import BOUNDARY, Part, body, parsed
from tests.media.conftest import StartServer
from tests.media.pictures import bomb, opened, picture
from tests.media.server import FEDERATION, OLD, V1, MediaServer, Town, plain

STRANGER = "stranger.example"
MULTIPART = f"multipart/mixed; boundary={BOUNDARY.decode()}"
METADATA: Part = ({"Content-Type": "application/json"}, b"{}")


def from_stranger(media_id: str = "abc") -> str:
    return f"{V1}/download/{STRANGER}/{media_id}"


def redirect_to(location: str) -> Any:
    return plain(body(METADATA, ({"Location": location}, b"")), Content_Type=MULTIPART)


# Two servers.


async def test_media_of_another_server_is_fetched_once_and_kept(
    here: MediaServer, there: MediaServer
) -> None:
    mxc = await there.upload(b"hello" * 100_000, "img/png", "?filename=%E2%98%95.png")
    for _ in range(2):
        answer = await here.get(f"{V1}/download/{mxc}")
        assert (answer.status, answer.body) == (200, b"hello" * 100_000)
        assert answer.headers["Content-Type"] == "img/png"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=utf-8''%E2%98%95.png"

    assert here.town.asked == [(there.name, f"{FEDERATION}/download/{mxc.partition('/')[2]}")]


async def test_many_askers_share_one_fetch(here: MediaServer, there: MediaServer) -> None:
    mxc = await there.upload(b"hello" * 100_000)
    answers = await asyncio.gather(*(here.get(f"{V1}/download/{mxc}") for _ in range(10)))

    assert {answer.body for answer in answers} == {b"hello" * 100_000}
    assert len(here.town.asked) == 1


async def test_an_empty_file_and_one_without_a_name_come_as_they_are(
    here: MediaServer, there: MediaServer
) -> None:
    answer = await here.get(f"{V1}/download/{await there.upload(b'')}")

    assert (answer.status, answer.body, answer.headers["Content-Disposition"]) == (200, b"", "inline")


async def test_thumbnails_of_another_servers_media_are_made_here(
    here: MediaServer, there: MediaServer
) -> None:
    mxc = await there.upload(picture(1000, 500), "image/png")
    answer = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&method=crop")

    assert opened(answer.body).size == (96, 96)
    assert [path for _, path in here.town.asked] == [f"{FEDERATION}/download/{mxc.partition('/')[2]}"]


async def test_another_server_may_ask_for_a_thumbnail(here: MediaServer, there: MediaServer) -> None:
    mxc = await there.upload(picture(1000, 500), "image/png")
    answer = await here.ask(
        there, f"{FEDERATION}/thumbnail/{mxc.partition('/')[2]}?width=64&height=64&method=crop"
    )
    separator = boundary(answer.headers["Content-Type"])
    assert separator is not None
    metadata, (headers, content) = parsed(answer.body, boundary=separator)

    assert metadata == ({"content-type": "application/json"}, b"{}")
    assert headers == {
        "content-type": "image/png",
        "content-disposition": "inline; filename=thumbnail.png",
    }
    assert opened(content).size == (64, 64)
    assert int(answer.headers["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("thumbnail/{}", (400, "M_MISSING_PARAM")),
        ("thumbnail/{}?width=0&height=1", (400, "M_INVALID_PARAM")),
        ("thumbnail/{}?width=1&height=1", (400, "M_UNKNOWN")),
        ("download/{}?timeout_ms=soon", (400, "M_INVALID_PARAM")),
        ("download/..", (404, "M_NOT_FOUND")),
        ("download/%2e%2e%2fsecret", (404, "M_NOT_FOUND")),
    ],
)
async def test_another_server_may_ask_wrongly(
    here: MediaServer, there: MediaServer, path: str, error: tuple[int, str]
) -> None:
    mxc = await there.upload(b"no picture", "image/png")

    assert (await here.ask(there, f"{FEDERATION}/{path.format(mxc.partition('/')[2])}")).error == error


async def test_what_the_other_server_does_not_have_is_not_found(
    here: MediaServer, there: MediaServer
) -> None:
    assert (await here.get(f"{V1}/download/{there.name}/abc")).error == (404, "M_NOT_FOUND")


async def test_what_is_not_uploaded_there_yet_is_not_here_either(
    here: MediaServer, there: MediaServer
) -> None:
    created = await there.call(there.alice, "POST", "/_matrix/media/v1/create")
    mxc = created.json["content_uri"].removeprefix("mxc://")

    assert (await here.get(f"{V1}/download/{mxc}?timeout_ms=10")).error == (504, "M_NOT_YET_UPLOADED")


async def test_a_server_that_is_not_there_is_to_blame(here: MediaServer) -> None:
    assert (await here.get(from_stranger())).status == 504


async def test_other_servers_must_sign_and_get_only_what_was_uploaded_here(
    here: MediaServer, there: MediaServer
) -> None:
    mxc = await there.upload(b"hello")
    await here.get(f"{V1}/download/{mxc}")
    media_id = mxc.partition("/")[2]

    assert (await there.call(None, "GET", f"{FEDERATION}/download/{media_id}")).error[0] == 401
    assert (await there.get(f"{V1}/download/{here.name}/{media_id}")).error == (404, "M_NOT_FOUND")


async def test_who_says_not_who_they_are_makes_us_fetch_nothing(
    here: MediaServer, there: MediaServer
) -> None:
    mxc = await there.upload(b"hello")
    assert (await here.call(None, "GET", f"{OLD}/download/{mxc}")).error == (404, "M_NOT_FOUND")
    assert here.town.asked == []

    await here.get(f"{V1}/download/{mxc}")
    assert (await here.call(None, "GET", f"{OLD}/download/{mxc}")).error == (404, "M_NOT_FOUND")


async def test_fetching_can_be_switched_off(start: StartServer, there: MediaServer) -> None:
    here = await start("here.example", allow_remote=False)

    assert (await here.get(f"{V1}/download/{await there.upload(b'x')}")).error == (404, "M_NOT_FOUND")


async def test_what_was_longest_not_looked_at_gives_way(
    start: StartServer, there: MediaServer, tmp_path: Path
) -> None:
    here = await start("here.example", remote_cache_bytes=200_000, max_remote_bytes=100_000)
    files = [await there.upload(bytes([number]) * 60_000) for number in range(5)]
    for mxc in [*files[:3], files[0], *files[3:]]:
        here.town.clock.advance(60)
        assert (await here.get(f"{V1}/download/{mxc}")).status == 200
        await here.content.copies.note_uses()

    here.town.asked.clear()
    for mxc in (files[0], files[4]):
        await here.get(f"{V1}/download/{mxc}?allow_remote=false")
    kept = [mxc for mxc in files if (await here.get(f"{V1}/download/{mxc}?allow_remote=false")).status == 200]
    assert kept == [files[0], *files[3:]]
    on_disk = [file for file in (tmp_path / here.name / "remote").rglob("*") if file.is_file()]
    assert len(on_disk) == 3


async def test_copies_and_thumbnails_that_were_lost_are_had_again(
    here: MediaServer, there: MediaServer, tmp_path: Path
) -> None:
    mxc = await there.upload(picture(500, 500), "image/png")
    path = f"{V1}/thumbnail/{mxc}?width=96&height=96"
    first = await here.get(path)
    for lost in ("remote", "thumbnails"):
        for file in (tmp_path / here.name / lost).rglob("*"):
            if file.is_file():
                file.unlink()

    again = await here.get(path)
    assert (again.status, again.body) == (200, first.body)


async def test_thumbnails_go_with_their_original(
    start: StartServer, there: MediaServer, tmp_path: Path
) -> None:
    here = await start("here.example", remote_cache_bytes=130_000, max_remote_bytes=65_000)
    mxc = await there.upload(picture(500, 500), "image/png")
    await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96")
    for _ in range(3):
        here.town.clock.advance(60)
        await here.get(f"{V1}/download/{await there.upload(b'x' * 60_000)}")

    assert not [file for file in (tmp_path / here.name / "thumbnails").rglob("*") if file.is_file()]


# Servers of before authenticated media.


@pytest.mark.parametrize(
    "refusal",
    [
        plain(b'{"errcode":"M_UNRECOGNIZED","error":"?"}', 404),
        plain(b'{"errcode":"M_UNRECOGNIZED","error":"?"}', 405),
        plain(b"404 page not found", 404),
    ],
)
async def test_old_servers_are_asked_in_the_old_way(here: MediaServer, refusal: Any) -> None:
    old = plain(b"hello", Content_Type="text/plain", Content_Disposition='inline; filename="a b"')
    asked: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        answer = old if request.path.startswith(OLD) else refusal
        response: web.StreamResponse = await answer(request)
        return response

    async with here.town.stranger(STRANGER, handle):
        answer = await here.get(from_stranger())

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["Content-Disposition"] == 'inline; filename="a b"'
    assert asked[1].raw_path == f"{OLD}/download/{STRANGER}/abc?allow_remote=false&timeout_ms=20000"
    assert "Authorization" in asked[0].headers
    assert "Authorization" not in asked[1].headers


# Hostile servers.


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": MULTIPART})
    await response.prepare(request)
    await response.write(body(METADATA, ({}, b"")).rpartition(b"\r\n--")[0])
    while True:
        await response.write(b"x" * 100_000)


async def endless_headers(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": MULTIPART})
    await response.prepare(request)
    await response.write(b"--" + BOUNDARY + b"\r\n")
    while True:
        await response.write(b"X-Header: more\r\n" * 1000)


async def says_less_than_it_sends(request: web.BaseRequest) -> web.StreamResponse:
    """The body ends where its length says, before the last delimiter."""
    whole = body(METADATA, ({}, b"hello"))
    response = web.StreamResponse(headers={"Content-Type": MULTIPART, "Content-Length": str(len(whole) - 20)})
    await response.prepare(request)
    await response.write(whole[:-20])
    return response


async def hangs_up(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": MULTIPART, "Content-Length": "1000000"})
    await response.prepare(request)
    await response.write(body(METADATA, ({}, b"hello")).rpartition(b"\r\n--")[0])
    assert request.transport is not None
    request.transport.abort()
    return response


GZIPPED = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (endless, (502, "M_TOO_LARGE")),
        (endless_headers, (502, "M_UNKNOWN")),
        (says_less_than_it_sends, (502, "M_UNKNOWN")),
        (hangs_up, (504, "M_UNKNOWN")),
        (plain(b"hello"), (502, "M_UNKNOWN")),
        (plain(body(METADATA), Content_Type=MULTIPART), (502, "M_UNKNOWN")),
        (plain(body(METADATA, METADATA, METADATA), Content_Type=MULTIPART), (502, "M_UNKNOWN")),
        (plain(body(METADATA, ({}, b"x")), Content_Type="multipart/mixed"), (502, "M_UNKNOWN")),
        (plain(body(({}, b"x" * 100_000), ({}, b"x")), Content_Type=MULTIPART), (502, "M_UNKNOWN")),
        (plain(GZIPPED, Content_Type=MULTIPART, Content_Encoding="gzip"), (502, "M_UNKNOWN")),
        (plain(b'{"errcode":"M_TOO_LARGE","error":"x"}', 502), (502, "M_TOO_LARGE")),
        (plain(b'{"errcode":"M_TOO_LARGE","error":"x"}', 413), (502, "M_TOO_LARGE")),
        (plain(b'{"errcode":"M_NOT_FOUND","error":"x"}', 404), (404, "M_NOT_FOUND")),
        (plain(b'{"errcode":"M_FORBIDDEN","error":"x"}', 403), (403, "M_FORBIDDEN")),
        (plain(b'{"errcode":"M_UNAUTHORIZED","error":"x"}', 401), (502, "M_UNKNOWN")),
        (plain(b"oh", 500), (502, "M_UNKNOWN")),
        (plain(b"", 307, Location="http://127.0.0.1/"), (502, "M_UNKNOWN")),
    ],
)
async def test_what_goes_wrong_there_is_told_and_leaves_nothing(
    start: StartServer, tmp_path: Path, answer: Any, error: tuple[int, str]
) -> None:
    here = await start("here.example", max_remote_bytes=500_000)
    async with here.town.stranger(STRANGER, answer):
        assert (await here.get(from_stranger())).error == error

    assert not [file for file in (tmp_path / here.name / "remote").rglob("*") if file.is_file()]


async def test_a_header_of_theirs_cannot_become_a_header_of_ours(here: MediaServer) -> None:
    part = {
        "Content-Type": "text/html\x0bX: y",
        "Content-Disposition": "inline; filename*=utf-8''a%0d%0aX:%20y",
    }
    answer = plain(body(METADATA, (part, b"<script>")), Content_Type=MULTIPART)
    async with here.town.stranger(STRANGER, answer):
        got = await here.get(from_stranger())

    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["Content-Disposition"] == 'attachment; filename="a__X: y"'


async def test_what_is_too_large_is_not_fetched_again_and_again(start: StartServer) -> None:
    here = await start("here.example", max_remote_bytes=100_000)
    async with here.town.stranger(STRANGER, endless):
        for _ in range(3):
            assert (await here.get(from_stranger())).error == (502, "M_TOO_LARGE")
        assert len(here.town.asked) == 1
        here.town.clock.advance(601)
        assert (await here.get(from_stranger())).error == (502, "M_TOO_LARGE")
    assert len(here.town.asked) == 2


async def test_a_server_that_never_ends_keeps_no_other_waiting(
    start: StartServer, there: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.media.remote._MAX_FETCHES", 30)
    asked: list[str] = []
    many, never = asyncio.Event(), asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        if len(asked) == 20:
            many.set()
        await never.wait()
        return web.Response(status=404)

    here, mxc = await start("here.example"), await there.upload(b"hello", "text/plain")
    async with here.town.stranger(STRANGER, hang):
        paths = [f"{V1}/download/{STRANGER}/{number}" for number in range(40)]
        hanging = [asyncio.create_task(here.get(path)) for path in paths]
        async with asyncio.timeout(60):
            await many.wait()
            answer = await here.get(f"{V1}/download/{mxc}")
        assert (len(asked), answer.body) == (20, b"hello")
        never.set()
        await asyncio.gather(*hanging)


async def test_their_bomb_is_too_large_for_a_thumbnail(here: MediaServer) -> None:
    async with here.town.stranger(STRANGER, plain(body(METADATA, ({}, bomb())), Content_Type=MULTIPART)):
        answer = await here.get(f"{V1}/thumbnail/{STRANGER}/abc?width=32&height=32")

    assert answer.error == (502, "M_TOO_LARGE")


# Redirects.


@asynccontextmanager
async def web_of(town: Town, handler: Callable[[web.BaseRequest], Any]) -> AsyncIterator[OpenUrl]:
    """A web behind every public address, without TLS; every request arrives at ``handler``."""
    async with town.stranger("web", handler):

        @asynccontextmanager
        async def get(url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
            address = town.addresses["web"].with_path(url.path).with_query({"host": url.host or ""})
            async with town.http.get(address, allow_redirects=False) as response:
                yield response

        yield get


async def test_a_redirect_is_followed_and_nobody_is_told_who_asks(town: Town, start: StartServer) -> None:
    asked: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        if request.path == "/first":
            return web.Response(status=307, headers={"Location": "/second"})
        headers = {"Content-Type": "image/png", "Content-Disposition": "inline; filename=a.png"}
        return web.Response(body=b"picture", headers=headers)

    async with (
        web_of(town, handle) as elsewhere,
        town.stranger(STRANGER, redirect_to("https://cdn.example/first")),
    ):
        here = await start("here.example", elsewhere=elsewhere)
        answer = await here.get(from_stranger())

    assert (answer.body, answer.headers["Content-Type"]) == (b"picture", "image/png")
    assert answer.headers["Content-Disposition"] == "inline; filename=a.png"
    assert [request.path for request in asked] == ["/first", "/second"]
    assert not any("Authorization" in request.headers for request in asked)


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/",
        "ftp://cdn.example/",
        "file:///etc/passwd",
        "//cdn.example/",
        "/relative",
        "https://",
        "https://user:password@cdn.example/",
        "https://[half/",
        "https://xn--a/",
        "javascript:alert(1)",
        "https://" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 60 + ".example/",
        "",
    ],
)
async def test_redirects_to_anything_but_public_https_are_refused(
    town: Town, start: StartServer, location: str
) -> None:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"secret")

    async with web_of(town, handle) as elsewhere, town.stranger(STRANGER, redirect_to(location)):
        here = await start("here.example", elsewhere=elsewhere)
        assert (await here.get(from_stranger())).error == (502, "M_UNKNOWN")
    assert asked == []


async def test_a_circle_of_redirects_is_left(town: Town, start: StartServer) -> None:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "https://cdn.example/again"})

    async with (
        web_of(town, handle) as elsewhere,
        town.stranger(STRANGER, redirect_to("https://cdn.example/")),
    ):
        here = await start("here.example", elsewhere=elsewhere)
        assert (await here.get(from_stranger())).error == (502, "M_UNKNOWN")
    assert len(asked) == MAX_REDIRECTS + 1


async def test_redirected_media_is_bounded_too(town: Town, start: StartServer) -> None:
    async with (
        web_of(town, plain(b"x" * 200_000)) as elsewhere,
        town.stranger(STRANGER, redirect_to("https://cdn.example/")),
    ):
        here = await start("here.example", elsewhere=elsewhere, max_remote_bytes=100_000)
        assert (await here.get(from_stranger())).error == (502, "M_TOO_LARGE")


class PrivateNames(aiohttp.abc.AbstractResolver):
    """Every name is that of this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        ]

    async def close(self) -> None: ...


@pytest.fixture
async def guarded() -> AsyncIterator[tuple[OpenUrl, list[str]]]:
    """The real way to other addresses, with a note of every socket that it opened."""
    policy, opened_sockets = address_policy(), list[str]()

    def open_socket(address: AddrInfoType) -> socket.socket:
        made = policy.open_socket(address)
        opened_sockets.append(str(address[4][0]))
        return made

    connector = aiohttp.TCPConnector(socket_factory=open_socket, resolver=PrivateNames())
    async with aiohttp.ClientSession(connector=connector) as session:
        yield open_url(session), opened_sockets


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "0.0.0.0",
        "looks.public.example",
    ],
)
async def test_no_redirect_leads_to_a_private_address(
    start: StartServer, guarded: tuple[OpenUrl, list[str]], host: str
) -> None:
    elsewhere, opened_sockets = guarded
    here = await start("here.example", elsewhere=elsewhere)
    async with here.town.stranger(STRANGER, redirect_to(f"https://{host}/latest/meta-data/")):
        answer = await here.get(from_stranger())

    assert answer.error == (504, "M_UNKNOWN")
    assert opened_sockets == []
