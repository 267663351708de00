"""A server that makes previews, and web sites for it to look at, all on loopback.

``127.0.0.1`` stands for the public internet, and ``127.0.0.2`` for the network inside,
which nobody may be led to.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import RawTestServer
from yarl import URL

from client_api.media import MediaApi
from client_api.media_routes import media_rows, preview_rows
from client_api.previews import PreviewsApi
from homeserver.addresses import DENIED_BY_DEFAULT, address_policy
from homeserver.clock import FakeClock
from homeserver.config import Media as MediaSettings
from homeserver.config.previews import UrlPreviews as Settings
from homeserver.content_repository import wire_content_repository
from homeserver.core import Core, open_core
from homeserver.egress import Egress, open_session, tls_context
from homeserver.previews.url_previews import UrlPreviews
from homeserver.protocol.signing import generate_signing_key
from homeserver.ratelimit import RateLimiter
from homeserver.storage.database import Database
from homeserver.url_previews import open_url_previews
from homeserver.web import Dispatcher
from tests.media.server import Answer, believe

PUBLIC, INSIDE = "127.0.0.1", "127.0.0.2"
ALICE, BOB = "@alice:here.example", "@bob:here.example"
V1 = "/_matrix/client/v1/media"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """A web site: what is at each path, and which were asked for."""

    address: str
    port: int = 0
    pages: dict[str, Handler] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"

    def put(self, path: str, body: bytes | str, kind: str = "text/html", **headers: str) -> str:
        """Something at a path; underscores in headers stand for hyphens.  Returns its address."""
        data = body.encode() if isinstance(body, str) else body
        sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        status = int(sent.pop("status", "200"))

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=data, headers=sent, status=status)

        self.pages[path] = handle
        return self.url(path)

    def redirect(self, path: str, to: str) -> str:
        return self.put(path, b"", Location=to, status="302")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.rel_url.raw_path)
        self.headers.append(request.headers.copy())
        handler = self.pages.get(request.rel_url.raw_path)
        return await handler(request) if handler else web.Response(status=404)


@asynccontextmanager
async def site_at(address: str) -> AsyncIterator[Site]:
    site = Site(address)
    async with RawTestServer(site.handle, host=address) as server:
        site.port = int(server.port or 0)
        yield site


class Names(AbstractResolver):
    """The addresses of names; of a name with several, each is told once, the last for ever."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        known = self.addresses.get(host)
        if not known:
            raise OSError(None, f"{host} is not known")
        address = known.pop(0) if len(known) > 1 else known[0]
        found = ResolveResult(
            hostname=host,
            host=address,
            port=port,
            family=socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        return [found]

    async def close(self) -> None:
        pass


class PreviewServer:
    """A running server."""

    def __init__(self, core: Core, previews: UrlPreviews | None, clock: FakeClock, base: URL) -> None:
        self.core = core
        self.previews = previews
        self.clock = clock
        self._base = base
        self._http = aiohttp.ClientSession()

    async def get(self, path: str, user_id: str | None = ALICE, **query: str) -> Answer:
        headers = {"Authorization": f"Bearer {user_id}"} if user_id else {}
        url = URL(f"{self._base}{path}")
        async with self._http.get(url.with_query(query), headers=headers) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def ask(self, url: str, user_id: str = ALICE, **query: str) -> Answer:
        """Ask for a preview."""
        return await self.get(f"{V1}/preview_url", user_id, url=url, **query)

    async def preview(self, url: str, **query: str) -> dict[str, Any]:
        """The preview of a page that has one."""
        answer = await self.ask(url, **query)
        assert answer.status == 200, (url, answer)
        found = json.loads(answer.body)
        assert isinstance(found, dict)
        return found

    async def close(self) -> None:
        await self._http.close()


@asynccontextmanager
async def preview_server(
    db: Database, folder: Path, names: Names, settings: Settings
) -> AsyncIterator[PreviewServer]:
    """A server to which only ``127.0.0.1`` is not private."""
    async with AsyncExitStack() as closing:
        clock = FakeClock()
        core = await open_core(db, clock, "here.example", generate_signing_key("a_test"))
        closing.push_async_callback(core.background.close)
        content = wire_content_repository(core, MediaSettings(folder=folder / "media"), None)
        await content.open(core, closing)
        policy = address_policy(DENIED_BY_DEFAULT, [f"{PUBLIC}/32"])
        session = await closing.enter_async_context(open_session(policy, tls_context(), names))
        previews = open_url_previews(core, settings, content, Egress(session), closing)
        media = MediaApi(
            uploads=content.uploads,
            media=content.media,
            thumbnails=content.thumbnails,
            max_upload_bytes=content.settings.max_upload_bytes,
        )
        dispatcher = Dispatcher(
            [*media_rows(media), *preview_rows(PreviewsApi(previews))],
            authenticate_user=believe,
            authenticate_server=_no_server,
            rate_limiter=RateLimiter({}, clock, enabled=False),
        )
        http = await closing.enter_async_context(RawTestServer(dispatcher))
        server = PreviewServer(core, previews, clock, URL(f"http://127.0.0.1:{http.port}"))
        closing.push_async_callback(server.close)
        yield server


async def _no_server(method: str, uri: str, headers: Mapping[str, str], body: bytes) -> str:
    raise LookupError("no server asks for previews")


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None
