"""A server that has rooms and sync, reached over HTTP; whoever names themselves is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from homeserver.errors import MatrixError
from homeserver.protocol.retention import Lifetimes
from homeserver.ratelimit import RateLimiter
from homeserver.searching import open_searching
from homeserver.storage.database import Database
from homeserver.users.requester import Requester
from homeserver.web import Dispatcher
from tests.sync.server import SyncServer

V3 = "/_matrix/client/v3"


class RoomServer:
    """The server, and a client to call it with."""

    def __init__(self, sync_server: SyncServer) -> None:
        self.sync_server = sync_server
        self.world = sync_server.world
        self.elsewhere = sync_server.elsewhere
        self.client: TestClient[Any, Any]

    async def call(
        self,
        user_id: str,
        /,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        """Status and JSON of a request by a user; ``path`` is absolute or below ``/_matrix/client/v3``."""
        headers = {"Authorization": f"Bearer {user_id}"}
        url = URL(path if path.startswith("/_matrix") else V3 + path, encoded=True).with_query(query)
        async with self.client.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, user_id: str, /, path: str, **query: str) -> Any:
        """The JSON of a request that succeeds."""
        status, reply = await self.call(user_id, "GET", path, None, **query)
        assert status == 200, reply
        return reply

    async def refusal(self, user_id: str, /, path: str, **query: str) -> tuple[int, str]:
        """Status and errcode of a request that fails."""
        status, reply = await self.call(user_id, "GET", path, None, **query)
        return status, reply["errcode"]


async def believe(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    """Access tokens here are user ids."""
    return Requester(headers["Authorization"].removeprefix("Bearer "), "PHONE")


async def nobody(*_: object) -> str:
    raise MatrixError(401, "M_UNAUTHORIZED", "There are no other servers here")


@asynccontextmanager
async def room_server(
    db: Database,
    *,
    searching: bool = False,
    lifetimes: Lifetimes | None = None,
    keep_redacted_ms: int = 0,
    **settings: bool,
) -> AsyncIterator[RoomServer]:
    """A running server, set up as ``SyncServer`` is; ``searching``: where messages can be searched."""
    opened = await SyncServer.open(db, lifetimes=lifetimes, keep_redacted_ms=keep_redacted_ms, **settings)
    if searching:
        opened.searching = await open_searching(opened.world.core, opened.reading)
    server = RoomServer(opened)
    dispatcher = Dispatcher(
        server.sync_server.routes(),
        authenticate_user=believe,
        authenticate_server=nobody,
        rate_limiter=RateLimiter({}, server.world.clock, enabled=False),
    )
    async with TestClient(RawTestServer(dispatcher)) as server.client:
        yield server


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")
