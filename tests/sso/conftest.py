"""Fixtures for single sign-on: a provider as a process, a server that knows it, a browser."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from homeserver.config.login import Provider, Sso
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured
from tests.processes import free_port
from tests.sso.browser import Browser
from tests.sso.provider import CLIENT_ID, CLIENT_SECRET

ROOT = Path(__file__).parents[2]
TRUSTED = "https://app.a.org/"


@dataclass(frozen=True, slots=True)
class Running:
    """A provider that runs at ``issuer``."""

    issuer: str

    def behaves(self, **behaviour: Any) -> None:
        """Say how; without anything, well."""
        request = urllib.request.Request(
            f"{self.issuer}/behaviour", data=orjson.dumps(behaviour), method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def asked(self) -> list[str]:
        """The paths that were asked for so far."""
        with urllib.request.urlopen(f"{self.issuer}/asked", timeout=10) as reply:
            paths: list[str] = orjson.loads(reply.read())
        return paths

    def settings(self, **options: Any) -> Provider:
        """The provider as the server is configured to know it."""
        return Provider(
            id="example",
            name="Example & Co",
            issuer=self.issuer,
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            **{"allow_registration": True, **options},
        )


def started(command: list[str], issuer: str) -> subprocess.Popen[bytes]:
    """A provider's process, once it answers."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.05)
        else:
            return process


@pytest.fixture(scope="session")
def provider_process() -> Iterator[Running]:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    process = started([sys.executable, "-m", "tests.sso.provider", str(port)], issuer)
    yield Running(issuer)
    process.kill()
    process.wait()


@pytest.fixture
def provider(provider_process: Running) -> Running:
    """A provider that behaves well, and knows Alice Example as ``1``."""
    provider_process.behaves(claims={"preferred_username": "Alice", "name": "Alice Example"})
    return provider_process


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Servers:
    """Starts servers that know providers, each with a browser."""

    def __init__(self, db: Database, closing: AsyncExitStack) -> None:
        self._db = db
        self._closing = closing

    async def start(self, *providers: Provider) -> AccountServer:
        sso = Sso(providers=providers, trusted_redirects=(TRUSTED,))
        server = account_server(self._db, config=configured(sso=sso))
        return await self._closing.enter_async_context(server)

    async def browser(self, server: AccountServer) -> Browser:
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        return Browser(server, await self._closing.enter_async_context(session))


@pytest.fixture
async def servers(sqlite_database: Database, closing: AsyncExitStack) -> Servers:
    return Servers(sqlite_database, closing)


@pytest.fixture
async def server(servers: Servers, provider: Running) -> AccountServer:
    """A server whose clock shows the time, since the provider's does, and that makes accounts."""
    started = await servers.start(provider.settings())
    started.clock.advance(time.time() - started.clock.now_ms() / 1000)
    return started


@pytest.fixture
async def browser(servers: Servers, server: AccountServer) -> Browser:
    return await servers.browser(server)
