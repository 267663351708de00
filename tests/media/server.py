"""Servers that keep media, reached over HTTP on loopback; whoever names themselves is believed.

Requests between them are signed and go through the real client and routes; only the way
from a server's name to its address is the test's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from yarl import URL

from client_api.media import MediaApi
from client_api.media_routes import media_rows
from federation.media import FederationMedia, OpenUrl, open_url
from federation.media_routes import MediaRoutes
from federation.signatures import authorization_header, parse_authorization
from federation.transport import WireRequest, unreachable
from homeserver.clock import FakeClock
from homeserver.config.media import Media as Settings
from homeserver.content_repository import ContentRepository, wire_content_repository
from homeserver.core import Core, open_core
from homeserver.errors import MatrixError
from homeserver.protocol.signing import SigningKey, generate_signing_key, verify_json
from homeserver.ratelimit import RateLimiter
from homeserver.storage.database import Database
from homeserver.users.requester import Requester
from homeserver.web import Access, Dispatcher, Route
from tests.signed_requests import signed_request

V1 = "/_matrix/client/v1/media"
OLD = "/_matrix/media/v3"
FEDERATION = "/_matrix/federation/v1/media"


@dataclass
class Answer:
    """A response, its body read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and errcode."""
        return self.status, self.json["errcode"]


@dataclass
class Town:
    """Where the servers are, and who asked whom for what."""

    http: aiohttp.ClientSession
    clock: FakeClock = field(default_factory=FakeClock)
    addresses: dict[str, URL] = field(default_factory=dict)
    keys: dict[str, SigningKey] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def open_response(self, request: WireRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """What ``Https.open`` does."""
        if request.server_name not in self.addresses:
            raise unreachable(request.server_name, "It is not there")
        self.asked.append((request.server_name, request.uri.partition("?")[0]))
        url = URL(f"{self.addresses[request.server_name]}{request.uri}", encoded=True)
        async with self.http.get(url, headers=request.headers, allow_redirects=False) as response:
            yield response

    @asynccontextmanager
    async def stranger(self, name: str, handler: Any) -> AsyncIterator[RawTestServer]:
        """A server of another kind, which answers as ``handler`` does."""
        async with RawTestServer(handler) as server:
            self.addresses[name] = URL(f"http://127.0.0.1:{server.port}")
            yield server


class MediaServer:
    """A server's content repository, and both of its APIs."""

    def __init__(self, town: Town, core: Core, content: ContentRepository) -> None:
        self.town = town
        self.core = core
        self.content = content
        self.name = core.server_name
        self.alice = f"@alice:{self.name}"
        self.bob = f"@bob:{self.name}"

    def routes(self) -> list[Route]:
        content = self.content
        api = MediaApi(
            uploads=content.uploads,
            media=content.media,
            thumbnails=content.thumbnails,
            max_upload_bytes=content.settings.max_upload_bytes,
        )
        theirs = MediaRoutes(media=content.media, thumbnails=content.thumbnails, server_name=self.name)
        return [
            *media_rows(api),
            Route("GET", f"{FEDERATION}/download/{{mediaId}}", theirs.download, Access.SERVER),
            Route("GET", f"{FEDERATION}/thumbnail/{{mediaId}}", theirs.thumbnail, Access.SERVER),
        ]

    async def authenticate_server(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes
    ) -> str:
        """Real signatures, by keys that the town knows."""
        try:
            signature = parse_authorization(headers["Authorization"])
            key = self.town.keys[signature.origin]
            request = signed_request(signature, method=method, uri=uri, destination=self.name, content=None)
            verify_json(request, signature.origin, key.key_id, key.verify_key_base64)
        except KeyError:
            raise MatrixError(401, "M_UNAUTHORIZED", "Not signed") from None
        return signature.origin

    async def call(
        self,
        user_id: str | None,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        **headers: str,
    ) -> Answer:
        """A request; underscores in names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if user_id:
            sent["Authorization"] = f"Bearer {user_id}"
        url = URL(f"{self.town.addresses[self.name]}{path}", encoded=True)
        async with self.town.http.request(method, url, data=body, headers=sent) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        """What Alice gets."""
        return await self.call(self.alice, "GET", path, **headers)

    async def ask(self, other: MediaServer, uri: str) -> Answer:
        """What another server gives to this one, which signs the request."""
        signature = authorization_header(
            method="GET",
            uri=uri,
            origin=self.name,
            destination=other.name,
            body=None,
            key=self.core.signing_key,
        )
        return await other.call(None, "GET", uri, Authorization=signature)

    async def upload(self, body: bytes, kind: str = "text/plain", query: str = "") -> str:
        """Alice uploads; returns ``server/mediaId``."""
        answer = await self.call(self.alice, "POST", f"{OLD}/upload{query}", body, Content_Type=kind)
        assert answer.status == 200, answer
        return str(answer.json["content_uri"]).removeprefix("mxc://")


async def believe(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    """Access tokens here are user ids."""
    if "Authorization" not in headers:
        raise MatrixError(401, "M_MISSING_TOKEN", "No access token")
    return Requester(headers["Authorization"].removeprefix("Bearer "), "PHONE")


@asynccontextmanager
async def media_server(
    town: Town, name: str, db: Database, folder: Path, *, elsewhere: OpenUrl | None = None, **settings: Any
) -> AsyncIterator[MediaServer]:
    """A running server; ``elsewhere`` opens addresses that other servers redirect to."""
    async with AsyncExitStack() as closing:
        key = generate_signing_key("a_test")
        core = await open_core(db, town.clock, name, key)
        closing.push_async_callback(core.background.close)
        remote = FederationMedia(
            server_name=name,
            key=key,
            open_response=town.open_response,
            open_url=elsewhere or open_url(town.http),
        )
        content = wire_content_repository(core, Settings(folder=folder / name, **settings), remote)
        await content.open(core, closing)
        server = MediaServer(town, core, content)
        dispatcher = Dispatcher(
            server.routes(),
            authenticate_user=believe,
            authenticate_server=server.authenticate_server,
            rate_limiter=RateLimiter({}, town.clock, enabled=False),
        )
        http = await closing.enter_async_context(RawTestServer(dispatcher))
        town.addresses[name], town.keys[name] = URL(f"http://127.0.0.1:{http.port}"), key
        yield server


def plain(body: bytes, status: int = 200, **headers: str) -> Any:
    """A stranger's handler that gives everybody the same; underscores stand for hyphens."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=sent)

    return handle
