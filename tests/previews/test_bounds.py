"""What keeps previews within their bounds: whose turn it is, which addresses, processes that go wrong."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import pytest

from homeserver.errors import MatrixError
from homeserver.previews.found import Found, Job
from homeserver.previews.rules import UrlRules
from homeserver.previews.turns import Turns
from homeserver.previews.workers import Unreadable, Workers
from tests.media.pictures import picture
from tests.previews.server import until


@pytest.mark.parametrize(
    ("pattern", "host", "path", "denied"),
    [
        ("example.org", "EXAMPLE.org.", "/a", True),
        ("example.org", "www.example.org", "/", False),
        ("*.example.org", "a.b.example.org", "/", True),
        ("*.example.org", "example.org", "/", False),
        ("*", "anything", "/", True),
        ("example.org/private/*", "example.org", "/private/a", True),
        ("example.org/private/*", "example.org", "/public", False),
        ("*/*.pdf", "example.org", "/a/b.pdf", True),
        ("10.*", "10.1.2.3", "/", True),
        ("a?b", "aXb", "/", False),
    ],
)
def test_patterns_deny_hosts_and_paths(pattern: str, host: str, path: str, denied: bool) -> None:
    assert UrlRules([pattern], [80]).permits(host, 80, path) is not denied


def test_only_some_ports_are_asked() -> None:
    rules = UrlRules([], [80, 443])
    assert [rules.permits("a.org", port, "/") for port in (80, 443, 22, 0)] == [True, True, False, False]


async def test_turns_are_few_at_once_and_fewer_for_one() -> None:
    turns, going = Turns(at_once=3, each=2, line=4), []
    async with AsyncExitStack() as stack:
        for name in ("a", "a"):
            await stack.enter_async_context(turns.turn(name))

        async def work(name: str) -> None:
            async with turns.turn(name):
                going.append(name)
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(work(name)) for name in ("a", "a", "b", "c")]
        await until(lambda: going == ["b"], "the turn of b")
        with pytest.raises(MatrixError) as caught:
            await work("a")
        assert caught.value.errcode == "M_LIMIT_EXCEEDED"
        tasks[2].cancel()
        await until(lambda: going == ["b", "c"], "the turn of c after that of b")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    async with turns.turn("a"), turns.turn("a"), turns.turn("b"):
        assert turns._lines.keys() == {"a", "b"}
    assert not turns._lines


async def test_a_process_reads_what_it_is_given() -> None:
    workers = Workers()
    page = await workers.describe(b"<title>a</title>", Job("html", "utf-8", "https://a.org/"))
    assert page == Found({}, {"og:title": "a"})
    image = await workers.identify(picture(30, 20))
    assert image is not None
    assert (image.width, image.height) == (30, 20)
    assert await workers.identify(b"no image") is None


async def test_a_process_that_is_slow_or_fails_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreadable):
        await Workers(seconds=0.0).identify(picture(30, 20))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unreadable):
        await Workers().identify(picture(30, 20))
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(Unreadable):
        await Workers().describe(b"", Job("html"))
