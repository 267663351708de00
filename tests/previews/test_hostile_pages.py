"""Pages and links made to do harm: to lead the server inside, to exhaust it, or to deceive it."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from tests.media.pictures import picture
from tests.previews.conftest import StartServer
from tests.previews.server import ALICE, BOB, INSIDE, PUBLIC, Handler, Names, PreviewServer, Site, until

NOTHING = (502, "M_UNKNOWN")


@pytest.fixture
async def nothing(here: PreviewServer, site: Site) -> bytes:
    """What is answered for a page that is simply not there."""
    return (await here.ask(site.url("/not-there"))).body


@pytest.mark.parametrize(
    "host",
    [
        *(INSIDE, "[::1]", "[::ffff:127.0.0.2]", "[64:ff9b::7f00:2]", "[2002:7f00:2::]", "0.0.0.0"),
        *("2130706434", "0x7f.0.0.2", "127.2", "[::ffff:7f00:2]", "169.254.169.254", "100.64.0.1"),
        *("[::127.0.0.2]", "xn--a", "%31%32%37.0.0.2", "\N{CIRCLED DIGIT ONE}27.0.0.2", "a..b"),
    ],
)
async def test_nobody_is_led_inside_by_an_address(
    here: PreviewServer, site: Site, inside: Site, nothing: bytes, host: str
) -> None:
    answer = await here.ask(inside.url("/secret", host))

    assert (answer.status, answer.body) == (502, nothing)
    assert inside.asked == []


async def test_nobody_is_led_inside_by_a_redirect(
    here: PreviewServer, site: Site, inside: Site, nothing: bytes
) -> None:
    site.redirect("/direct", inside.url("/secret"))
    site.redirect("/twice", site.url("/direct"))
    site.redirect("/scheme", "file:///etc/passwd")
    site.redirect("/relative", f"//{INSIDE}:{inside.port}/secret")
    for path in ("/direct", "/twice", "/scheme", "/relative"):
        answer = await here.ask(site.url(path))
        assert (answer.status, answer.body) == (502, nothing), path
    assert inside.asked == []


async def test_nobody_is_led_inside_by_a_name_whatever_it_meant_before(
    here: PreviewServer, site: Site, inside: Site, names: Names, nothing: bytes
) -> None:
    names.addresses = {"first.test": [PUBLIC], "second.test": [INSIDE], "changing.test": [PUBLIC, INSIDE]}
    site.redirect("/away", inside.url("/secret", "second.test"))
    site.put("/", "<title>Outside</title>")

    assert (await here.ask(site.url("/away", "first.test"))).body == nothing
    assert (await here.ask(inside.url("/secret", "second.test"))).body == nothing
    assert await here.preview(site.url("/", "changing.test")) == {"og:title": "Outside"}
    names.addresses["changing.test"] = [INSIDE]
    assert (await here.ask(inside.url("/secret", "changing.test"))).body == nothing
    assert inside.asked == []


async def test_nobody_is_led_inside_by_an_image_or_an_oembed_link(
    here: PreviewServer, site: Site, inside: Site
) -> None:
    site.redirect("/hop.png", inside.url("/secret.png"))
    embed = site.put("/embed", json.dumps({"type": "photo", "url": inside.url("/secret.png")}), "text/json")
    page = "<title>Page</title><link rel=alternate type=application/json+oembed href='%s'><img src='%s'>"
    for number, (link, image) in enumerate(
        [(inside.url("/secret"), inside.url("/secret.png")), (embed, "/hop.png")]
    ):
        found = await here.preview(site.put(f"/{number}", page % (link, image)))
        assert found == {"og:title": "Page"}
    assert inside.asked == []


async def test_a_name_that_only_pretends_to_be_encoded_is_nobody_s_trouble(
    here: PreviewServer, site: Site, nothing: bytes
) -> None:
    page = "<title>Page</title><link rel=alternate type=text/xml+oembed href='//xn--a/'><img src='//xn--a/'>"
    assert (await here.ask(site.redirect("/hop", "http://xn--a/"))).body == nothing
    assert await here.preview(site.put("/page", page)) == {"og:title": "Page"}


async def test_what_the_administrator_denies_is_not_looked_at(start: StartServer, site: Site) -> None:
    server = await start(denied_urls=("*.0.0.1/private/*", "example.org"), ports=(site.port,))
    site.put("/private/a", "<title>Private</title>")
    site.redirect("/hop", site.url("/private/a"))
    assert (await server.ask(site.url("/private/a"))).error == (403, "M_FORBIDDEN")
    assert (await server.ask("http://EXAMPLE.org./")).error == (403, "M_FORBIDDEN")
    assert (await server.ask(f"http://{PUBLIC}:1/")).error == (403, "M_FORBIDDEN")
    assert (await server.ask(site.url("/hop"))).error == NOTHING
    assert site.asked == ["/hop"]


@pytest.mark.parametrize("denied", ["b\u00fccher.test", "xn--bcher-kva.test"])
async def test_a_name_is_denied_in_both_its_forms(
    start: StartServer, site: Site, names: Names, denied: str
) -> None:
    server = await start(denied_urls=(denied,), ports=(site.port,))
    site.put("/", "<title>Books</title>")
    for host in ("b\u00fccher.test", "xn--bcher-kva.test", "B\u00dcCHER.test."):
        names.addresses[host] = names.addresses["xn--bcher-kva.test"] = [PUBLIC]
        assert (await server.ask(site.url("/", host))).status in (403, 502), host
    assert site.asked == []


async def test_redirects_end_somewhere_and_bring_no_passwords(here: PreviewServer, site: Site) -> None:
    site.redirect("/circle", site.url("/circle"))
    site.put("/open", "<title>Open</title>")
    site.redirect("/password", site.url("/open", f"a:b@{PUBLIC}"))
    for path in ("/circle", "/password"):
        assert (await here.ask(site.url(path))).error == NOTHING
    assert site.asked == ["/circle"] * 6 + ["/password"]


async def test_a_small_answer_that_becomes_large_is_read_in_part(here: PreviewServer, site: Site) -> None:
    begin = b"<title>Bomb</title><p>"
    page = gzip.compress(begin + bytes(200_000_000), 9)
    site.put("/", page, Content_Encoding="gzip")
    image = gzip.compress(picture(60, 60) + bytes(100_000_000), 9)
    site.put("/bomb.png", image, "image/png", Content_Encoding="gzip")

    assert await here.preview(site.url("/")) == {"og:title": "Bomb"}
    assert await here.preview(site.url("/bomb.png")) == {}


def streaming(pieces: AsyncIterator[bytes], kind: str = "text/html") -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        async for piece in pieces:
            await response.write(piece)
        return response

    return handle


async def endless(piece: bytes, seconds: float = 0.0) -> AsyncIterator[bytes]:
    yield b"<title>On and on</title>"
    while True:
        yield piece
        await asyncio.sleep(seconds)


async def test_an_endless_page_is_read_in_part_and_an_endless_image_not_at_all(
    start: StartServer, site: Site
) -> None:
    server = await start(max_image_bytes=65_536)
    site.pages["/page"] = streaming(endless(b"<p>" + b"a" * 60_000))
    site.pages["/image"] = streaming(endless(bytes(60_000)), "image/png")
    assert (await server.preview(site.url("/page")))["og:title"] == "On and on"
    assert await server.preview(site.url("/image")) == {}


async def test_a_page_that_drips_is_given_up(start: StartServer, site: Site) -> None:
    server = await start(timeout=1.0)
    site.pages["/"] = streaming(endless(b"a", 0.05))
    site.put("/with", '<title>With</title><img src="/drips.png">')
    site.pages["/drips.png"] = streaming(endless(b"a", 0.05), "image/png")
    assert (await server.ask(site.url("/"))).error == NOTHING
    assert await server.preview(site.url("/with")) == {"og:title": "With"}


@pytest.mark.parametrize(
    "page",
    [
        b"<b>" * 400_000 + b"</i>" * 200_000,
        b"<table><tr><td>" * 130_000,
        b"<" * 2_000_000,
        b"<p " + b"a=1 " * 500_000 + b">",
        b"<svg><![CDATA[" * 140_000,
    ],
    ids=["nested", "tables", "brackets", "attributes", "sections"],
)
async def test_a_page_made_to_be_slow_holds_nobody_up(here: PreviewServer, site: Site, page: bytes) -> None:
    url = site.put("/", b"<title>Slow</title>" + page)
    asked = asyncio.create_task(here.preview(url))
    while not asked.done():
        async with asyncio.timeout(5):
            await asyncio.sleep(0.01)

    assert (await asked)["og:title"] == "Slow"


async def test_certificates_that_nobody_vouches_for_are_refused(start: StartServer) -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="<title>Trust me</title>", content_type="text/html")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(PUBLIC).configure_cert(tls)
    site = RawTestServer(handle, host=PUBLIC)
    await site.start_server(ssl=tls)
    server = await start(ports=(site.port,))
    answer = await server.ask(f"https://{PUBLIC}:{site.port}/")
    await site.close()

    assert answer.error == NOTHING


async def test_what_is_not_http_and_nobody_at_home_are_alike(
    here: PreviewServer, site: Site, inside: Site, nothing: bytes
) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        writer.close()

    # The inner site's port, at the address that may be contacted.
    server = await asyncio.start_server(babble, PUBLIC, inside.port)
    spoken = await here.ask(f"http://{PUBLIC}:{inside.port}/")
    server.close()
    await server.wait_closed()
    silent = await here.ask(f"http://{PUBLIC}:{inside.port}/other")

    assert spoken.body == silent.body == nothing


async def test_one_user_cannot_keep_all_others_waiting(here: PreviewServer, site: Site) -> None:
    never = asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    site.pages |= {f"/{number}": hang for number in range(70)}
    greedy = [asyncio.create_task(here.ask(site.url(f"/{number}"), ALICE)) for number in range(70)]
    await until(lambda: sum(task.done() for task in greedy) == 10, "what is too much to be refused")
    refused = [await task for task in greedy if task.done()]
    assert [answer.error for answer in refused] == [(429, "M_LIMIT_EXCEEDED")] * 10

    site.put("/other", "<title>Mine</title>")
    assert (await here.ask(site.url("/other"), BOB)).json == {"og:title": "Mine"}
    assert len(site.asked) == 7
    for task in greedy:
        task.cancel()
    never.set()


HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html"


@pytest.mark.parametrize(
    "answer",
    [
        HTML + b"; charset=\xff\xfe\r\n\r\n<title>a</title>",
        HTML + b"; charset=" + b"x" * 5000 + b"\r\n\r\n<title>a</title>",
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/\xff\xe4;;;=\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://a:b/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"a" * 300 + b".org/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ///\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        HTML + b"\r\nContent-Encoding: gzip\r\n\r\nno gzip",
        HTML + b"\r\nContent-Encoding: br, zstd\r\n\r\nneither",
        HTML + b"\r\nContent-Length: -1\r\n\r\n",
        HTML + b"\r\nContent-Length: 100\r\n\r\nshort",
        HTML + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        HTML + b"\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 999 \xff\r\n\r\n",
        b"",
    ],
)
async def test_whatever_a_server_answers_is_no_trouble_of_ours(start: StartServer, answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    stranger = await asyncio.start_server(speak, PUBLIC)
    port = stranger.sockets[0].getsockname()[1]
    server = await start(ports=(port,), timeout=5.0)
    told = await server.ask(f"http://{PUBLIC}:{port}/")
    stranger.close()

    assert told.status in (200, 502), told
    assert told.status == 200 or told.json["errcode"] == "M_UNKNOWN"
