"""A server as a process, and stock clients to use it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.clients.storyteller import JS, Storyteller
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

_OLDEST_NODE = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module."""
    folder = tmp_path_factory.mktemp("inglenook")
    server = inglenook(folder, Authority(folder / "authority"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def node() -> str:
    """The program; skips where it, or what the stories need, is not installed."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.removeprefix("v").split(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"needs node {_OLDEST_NODE} or newer, not {said.strip()}")
    if not (JS / "node_modules" / "matrix-js-sdk").exists():
        pytest.skip(f"needs matrix-js-sdk: 'npm ci' in {JS.name} did not install it")
    return program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def js(
    server: Server, node: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Storyteller]:
    """matrix-js-sdk, ready to tell stories; its tests run in the module's loop."""
    teller = await Storyteller.start(node, server.client_url, tmp_path_factory.mktemp("node") / "log")
    yield teller
    await teller.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        program = shutil.which(name)
        if program is not None:
            return program
    pytest.skip("needs Chromium")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A browser that asks nobody for anything but what its pages do; its tests run in the module's loop."""
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            # As root it cannot make a sandbox; what it opens is ours.
            args=[f"--{flag}" for flag in ("no-sandbox", "disable-gpu", "disable-quic", *quiet)],
        )
        yield browser
        await browser.close()
