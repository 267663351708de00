"""A page in a real browser, from another origin, that follows a room over each live transport."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from tests.interop.client import Client
from tests.processes import LOOPBACK, Server, free_port

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("browser")]

PAGE = Path(__file__).parents[2] / "docs" / "examples" / "live.html"
PATIENCE_S = 60.0
_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[str]:
    """Where the page is served: not by the homeserver."""

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE)

    app, port = web.Application(), free_port()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    yield f"http://{LOOPBACK}:{port}/"
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def alice(server: Server) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        alice = Client(http, server)
        await alice.register(f"alice-{next(_numbers)}", "correct horse battery staple")
        yield alice


async def follow(browser: Browser, site: str, alice: Client, room: str, *, over: str) -> Page:
    """The page, following a room as Alice."""
    page = await browser.new_page()
    await page.goto(site)
    await page.fill("#server", alice.base_url)
    await page.fill("#token", alice.access_token)
    await page.fill("#room", room)
    await page.select_option("#transport", over)
    await page.click("#settings button")
    return page


async def shown(page: Page, is_all: Callable[[list[str]], bool]) -> list[str]:
    """The lines of the page, once they are all there."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not is_all(lines):
                await page.wait_for_function("n => document.querySelectorAll('#messages li').length > n",
                                             arg=len(lines), timeout=PATIENCE_S * 1000)  # fmt: skip
                lines = await page.locator("#messages li").all_inner_texts()
    except TimeoutError:
        state = await page.inner_text("#state")
        raise AssertionError(f"the page shows {lines[-5:]}, and of itself: {state}") from None
    return lines


@pytest.mark.parametrize("over", ["sse", "socket"])
async def test_a_page_shows_every_message_once_also_when_the_server_is_killed(
    browser: Browser, site: str, server: Server, alice: Client, over: str
) -> None:
    room: str = (await alice.request("POST", "/createRoom", {}))["room_id"]
    said = [f"message {number}" for number in range(12)]
    page = await follow(browser, site, alice, room, over=over)
    for text in said[:4]:
        await alice.say(room, text)
    await shown(page, lambda lines: len(lines) >= 4)
    server.kill()
    server.start()
    for text in said[4:8]:
        await alice.say(room, text)
    await shown(page, lambda lines: len(lines) >= 8)
    for text in said[8:]:
        await alice.say(room, text)

    lines = await shown(page, lambda lines: len(lines) >= 12)
    assert lines == [f"{alice.user_id} {text}" for text in said]
    await page.close()


@pytest.mark.parametrize("over", ["sse", "socket"])
async def test_what_people_write_is_text_and_no_page(
    browser: Browser, site: str, alice: Client, over: str
) -> None:
    room: str = (await alice.request("POST", "/createRoom", {}))["room_id"]
    page = await follow(browser, site, alice, room, over=over)
    evil = "<img src=x onerror=\"document.title = 'taken over'\">"
    await alice.say(room, evil)

    assert await shown(page, bool) == [f"{alice.user_id} {evil}"]
    assert await page.title() == "A room, live"
    await page.close()


async def test_the_page_says_something_itself(browser: Browser, site: str, alice: Client) -> None:
    room: str = (await alice.request("POST", "/createRoom", {}))["room_id"]
    page = await follow(browser, site, alice, room, over="socket")
    await page.wait_for_selector("#text:not([disabled])", timeout=PATIENCE_S * 1000)
    await page.fill("#text", "from the page")
    await page.press("#text", "Enter")

    assert await shown(page, bool) == [f"{alice.user_id} from the page"]
    history = await alice.request("GET", f"/rooms/{room}/messages", dir="b", limit=1)
    assert [event["content"]["body"] for event in history["chunk"]] == ["from the page"]
    await page.close()


@pytest.mark.parametrize("over", ["sse", "socket"])
async def test_a_page_whose_session_ends_is_told_so(
    browser: Browser, site: str, alice: Client, over: str
) -> None:
    room: str = (await alice.request("POST", "/createRoom", {}))["room_id"]
    page = await follow(browser, site, alice, room, over=over)
    await alice.say(room, "goodbye")
    await shown(page, bool)
    await alice.request("POST", "/logout")
    await page.wait_for_function(
        "document.getElementById('state').textContent.startsWith('ended')", timeout=PATIENCE_S * 1000
    )

    assert "M_UNKNOWN_TOKEN" in await page.inner_text("#state")
    await page.close()
