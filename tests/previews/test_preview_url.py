"""What people are told of links: ``GET /media/preview_url``, over HTTP."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from client_api.guests import open_to_guests
from client_api.media_routes import preview_rows
from client_api.previews import PreviewsApi
from homeserver.previews.url_previews import KEPT_MS
from homeserver.web import Access
from tests.media.pictures import bomb, opened, picture
from tests.previews.conftest import StartServer
from tests.previews.server import ALICE, BOB, V1, PreviewServer, Site, until

HOUR = 3600.0
PAGE = """<!doctype html><html><head><title>Bakery – the title of the window</title>
<meta property="og:title" content="The bakery at the corner">
<meta property="og:description" content="Bread &amp; rolls,\n every   morning from six.">
<meta property="og:site_name" content="Corner"><meta property="og:type" content="article">
<meta property="og:image" content="/loaf.png"><meta property="og:image:width" content="9999">
</head><body><p>Come in.</p></body></html>"""


async def test_a_page_is_shown_as_it_wants_to_be(here: PreviewServer, site: Site) -> None:
    loaf = picture(120, 80)
    site.put("/loaf.png", loaf, "image/png")
    found = await here.preview(site.put("/bakery", PAGE))

    mxc = found.pop("og:image")
    assert found == {
        "og:title": "The bakery at the corner",
        "og:description": "Bread & rolls, every morning from six.",
        "og:site_name": "Corner",
        "og:type": "article",
        "og:image:type": "image/png",
        "og:image:width": 120,
        "og:image:height": 80,
        "matrix:image:size": len(loaf),
    }
    path = str(mxc).removeprefix("mxc://")
    assert (await here.get(f"{V1}/download/{path}")).body == loaf
    thumbnail = await here.get(f"{V1}/thumbnail/{path}", width="32", height="32")
    assert opened(thumbnail.body).width == 48


async def test_the_deprecated_endpoint_tells_the_same(here: PreviewServer, site: Site) -> None:
    url = site.put("/", "<title>Here</title>")
    for path in ("/_matrix/media/v3/preview_url", "/_matrix/media/r0/preview_url", f"{V1}/preview_url"):
        answer = await here.get(path, url=url)
        assert (answer.status, answer.json) == (200, {"og:title": "Here"})
    assert site.asked == ["/"]


async def test_only_users_ask_and_only_for_what_can_be_an_address(here: PreviewServer, site: Site) -> None:
    assert (await here.get(f"{V1}/preview_url", None, url=site.url("/"))).error == (401, "M_MISSING_TOKEN")
    assert (await here.get(f"{V1}/preview_url")).error == (400, "M_MISSING_PARAM")
    for url in (
        "",
        "x",
        "ftp://a.org/",
        "file:///etc/passwd",
        "http://",
        "http://a:b@c.org/",
        "http://a:99999",
    ):
        assert (await here.ask(url)).error == (400, "M_INVALID_PARAM"), url
    assert (await here.ask(site.url("/"), ts="soon")).error == (400, "M_INVALID_PARAM")
    assert site.asked == []


def test_guests_do_not_ask_and_all_requests_are_counted() -> None:
    rows = open_to_guests(preview_rows(PreviewsApi(None)))
    assert [(row.access, row.guests, row.limit) for row in rows] == [(Access.USER, False, "preview")] * 2


async def test_where_previews_are_off_there_is_no_such_endpoint(start: StartServer, site: Site) -> None:
    server = await start(enabled=False)
    assert (await server.ask(site.url("/"))).error == (404, "M_UNRECOGNIZED")


async def test_a_preview_is_kept_for_a_day_and_for_messages_of_that_day(
    here: PreviewServer, site: Site
) -> None:
    url = site.put("/", "<title>Monday</title>")
    monday = here.clock.now_ms()
    assert await here.preview(f"{url}#part") == {"og:title": "Monday"}
    site.put("/", "<title>Wednesday</title>")
    here.clock.advance(23 * HOUR)
    assert await here.preview(url) == {"og:title": "Monday"}
    here.clock.advance(25 * HOUR)
    assert await here.preview(url) == {"og:title": "Wednesday"}

    for ts in (monday, monday - 1000, monday + 1000):
        assert await here.preview(url, ts=str(ts)) == {"og:title": "Monday"}
    for ts in (monday + 24 * 3_600_000, here.clock.now_ms(), 2**53):
        assert await here.preview(url, ts=str(ts)) == {"og:title": "Wednesday"}
    assert site.asked == ["/", "/"]


async def test_a_page_that_is_there_but_tells_nothing_is_no_failure(here: PreviewServer, site: Site) -> None:
    for path, body, kind in (
        ("/empty", "", "text/html"),
        ("/silent", "<html><body></body></html>", "text/html"),
        ("/file", b"PK", "application/zip"),
        ("/broken.png", b"no image", "image/png"),
    ):
        answer = await here.ask(site.put(path, body, kind))
        assert (answer.status, answer.json) == (200, {}), path


async def test_a_failure_is_remembered_for_minutes_only(here: PreviewServer, site: Site) -> None:
    url = site.put("/", "broken", status="500")
    before = here.clock.now_ms()
    for _ in range(2):
        assert (await here.ask(url)).error == (502, "M_UNKNOWN")
    assert site.asked == ["/"]
    site.put("/", "<title>Mended</title>")
    here.clock.advance(601)
    assert await here.preview(url, ts=str(before)) == {"og:title": "Mended"}


async def test_who_asks_at_the_same_time_shares_one_look(here: PreviewServer, site: Site) -> None:
    url, ready = site.url("/slow"), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await ready.wait()
        return web.Response(text="<title>At last</title>", content_type="text/html")

    site.pages["/slow"] = slow
    gone = asyncio.create_task(here.ask(url))
    others = [asyncio.create_task(here.ask(url, user)) for user in (ALICE, BOB, BOB)]
    await until(lambda: site.asked == ["/slow"], "the page to be asked for")
    gone.cancel()
    ready.set()

    answers = await asyncio.gather(*others)
    assert [answer.json for answer in answers] == [{"og:title": "At last"}] * 3
    assert site.asked == ["/slow"]


async def test_an_image_of_several_pages_is_fetched_once(here: PreviewServer, site: Site) -> None:
    site.put("/loaf.png", picture(60, 60), "image/png")
    urls = [site.put(f"/{number}", PAGE) for number in range(3)]
    found = await asyncio.gather(*map(here.preview, urls))

    assert len({str(each["og:image"]) for each in found}) == 1
    assert site.asked.count("/loaf.png") == 1


async def test_the_next_image_is_taken_where_the_first_is_none(here: PreviewServer, site: Site) -> None:
    site.put("/a.png", "<html>Not found</html>", "image/png")
    site.put("/b.svg", "<svg onload='alert(1)'/>", "image/svg+xml")
    site.put("/c.jpg", picture(70, 50, "JPEG", orientation=6), "application/octet-stream")
    images = "".join(f'<meta property="og:image" content="{path}">' for path in ("a.png", "b.svg", "c.jpg"))
    found = await here.preview(site.put("/", f"<title>x</title>{images}"))

    assert found["og:image:type"] == "image/jpeg"
    assert (found["og:image:width"], found["og:image:height"]) == (50, 70)


@pytest.mark.parametrize("lie", [bomb(), b"GIF89a", b"", b"<script>", b"\x89PNG\r\n\x1a\n" + bytes(5000)])
async def test_what_is_no_image_or_a_monstrous_one_is_not_shown(
    here: PreviewServer, site: Site, lie: bytes
) -> None:
    site.put("/loaf.png", lie, "image/png")
    found = await here.preview(site.put("/", PAGE))

    assert found["og:title"] == "The bakery at the corner"
    assert not [name for name in found if "image" in name]
    assert await here.preview(site.url("/loaf.png")) == {}


async def test_links_to_images_sounds_films_and_texts_say_what_they_are(
    here: PreviewServer, site: Site
) -> None:
    image = await here.preview(site.put("/a%20loaf.gif", picture(60, 50, "GIF"), "image/jpeg"))
    assert (image["og:title"], image["og:image:type"]) == ("a loaf.gif", "image/gif")
    sound = await here.preview(site.put("/song.ogg", bytes(9), "audio/ogg"))
    assert sound == {
        "og:title": "song.ogg",
        "og:audio": site.url("/song.ogg"),
        "og:audio:type": "audio/ogg",
    }
    film = await here.preview(site.put("/film.mp4", bytes(9), "video/mp4"))
    assert (film["og:type"], film["og:video"]) == ("video.other", site.url("/film.mp4"))
    text = await here.preview(site.put("/a.txt", "Zwölf\nBoxkämpfer", "text/plain; charset=utf-8"))
    assert text == {"og:title": "a.txt", "og:description": "Zwölf Boxkämpfer"}
    assert await here.preview(site.put("/a.pdf", bytes(9), "application/pdf")) == {}


@pytest.mark.parametrize("kind", ["json", "xml"])
async def test_what_a_page_leaves_out_its_oembed_may_tell(here: PreviewServer, site: Site, kind: str) -> None:
    site.put("/loaf.png", picture(60, 60), "image/png")
    answers = {
        "json": '{"version": "1.0", "type": "photo", "title": "A loaf", "url": "/loaf.png"}',
        "xml": "<oembed><type>photo</type><title>A loaf</title><url>/loaf.png</url></oembed>",
    }
    site.put("/embed", answers[kind], f"application/{kind}")
    link = f'<link rel="alternate" type="application/{kind}+oembed" href="/embed">'
    found = await here.preview(site.put("/", f"<title>The window</title>{link}"))

    assert (found["og:title"], found["og:image:type"]) == ("A loaf", "image/png")


async def test_sites_are_asked_in_the_languages_that_are_set_and_without_cookies(
    start: StartServer, site: Site
) -> None:
    server = await start(accept_language=("de", "en;q=0.5"))
    site.put("/end", "<title>Ende</title>")
    site.put("/", "", Location="/end", Set_Cookie="a=b", status="302")
    assert await server.preview(site.url("/")) == {"og:title": "Ende"}

    assert [headers["Accept-Language"] for headers in site.headers] == ["de, en;q=0.5"] * 2
    assert not any("Cookie" in headers for headers in site.headers)


async def test_what_is_over_is_forgotten_with_its_image(here: PreviewServer, site: Site) -> None:
    site.put("/loaf.png", picture(60, 60), "image/png")
    found = await here.preview(site.put("/", PAGE))
    await here.ask(site.url("/none"))
    path = str(found["og:image"]).removeprefix("mxc://")
    assert here.previews is not None

    here.clock.advance(KEPT_MS / 1000)
    await here.previews.forget_old()
    assert (await here.get(f"{V1}/download/{path}")).status == 200
    here.clock.advance(25 * HOUR)
    await here.previews.forget_old()
    assert (await here.get(f"{V1}/download/{path}")).error == (404, "M_NOT_FOUND")
    await here.preview(site.url("/"))
    assert site.asked.count("/") == 2


async def test_images_beyond_what_they_may_take_go_with_their_previews(
    start: StartServer, site: Site
) -> None:
    server = await start(image_cache_bytes=65_536)
    for number in range(3):
        site.put(f"/{number}.bmp", picture(60, 60) + bytes(30_000), "image/png")
        await server.preview(site.url(f"/{number}.bmp"))
        server.clock.advance(1)

    # No chore had a turn in between: whoever looks at many images fills no disk until it has.
    for number in (1, 2, 0):
        await server.preview(site.url(f"/{number}.bmp"))
    assert site.asked == ["/0.bmp", "/1.bmp", "/2.bmp", "/0.bmp"]
