"""A server that has rooms and sync, reached over HTTP; whoever names themselves is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from client_api.ephemeral import EphemeralApi
from client_api.messages import MessagesApi
from client_api.sync import SyncApi
from client_api.to_device import ToDeviceApi
from homeserver.errors import MatrixError
from homeserver.ratelimit import RateLimiter
from homeserver.rooms.history import History
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.room import Room
from homeserver.storage.database import Database
from homeserver.users.requester import Requester
from homeserver.web import Dispatcher, Route
from tests.sync.server import SyncServer
from tests.world import World

V3 = "/_matrix/client/v3"
_ROOM = f"{V3}/rooms/{{roomId}}"


class AskedForHistory:
    """Notes what history other servers would be asked for; they have none."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        self.asked.append((low, high))
        return False


class RoomServer:
    """The server, and a client to call it with."""

    def __init__(self, sync_server: SyncServer) -> None:
        self.sync_server = sync_server
        self.world: World = sync_server.world
        self.elsewhere = AskedForHistory()
        self.client: TestClient[Any, Any]

    def routes(self) -> list[Route]:
        server, world = self.sync_server, self.world
        history = History(
            db=world.db,
            rooms=world.rooms,
            keys=world.keys,
            events=world.events,
            states=world.states,
            visibility=server.visibility,
            backfill=self.elsewhere,
        )
        messages = MessagesApi(history, server.client_events, IgnoredUsers(world.db))
        ephemeral = EphemeralApi(server.typing, server.receipts, server.presence)
        return [
            Route("GET", f"{V3}/sync", SyncApi(world.db, server.sync).sync),
            Route("GET", f"{_ROOM}/messages", messages.messages),
            Route("GET", f"{_ROOM}/context/{{eventId}}", messages.context),
            Route("GET", f"{_ROOM}/event/{{eventId}}", messages.event),
            Route("GET", f"{_ROOM}/state", messages.state),
            Route("GET", f"{_ROOM}/state/{{eventType}}", messages.state_event),
            Route("GET", f"{_ROOM}/state/{{eventType}}/{{stateKey}}", messages.state_event),
            Route("GET", f"{_ROOM}/members", messages.members),
            Route("GET", f"{_ROOM}/joined_members", messages.joined_members),
            Route("PUT", f"{_ROOM}/typing/{{userId}}", ephemeral.set_typing),
            Route("POST", f"{_ROOM}/receipt/{{receiptType}}/{{eventId}}", ephemeral.send_receipt),
            Route("POST", f"{_ROOM}/read_markers", ephemeral.set_read_markers),
            Route("GET", f"{V3}/presence/{{userId}}/status", ephemeral.presence),
            Route("PUT", f"{V3}/presence/{{userId}}/status", ephemeral.set_presence),
            Route("PUT", f"{V3}/sendToDevice/{{eventType}}/{{txnId}}", ToDeviceApi(server.to_device).send),
        ]

    async def call(
        self,
        user_id: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        """Status and JSON of a request by a user; ``path`` is below ``/_matrix/client/v3``."""
        headers = {"Authorization": f"Bearer {user_id}"}
        url = URL(V3 + path, encoded=True).with_query(query)
        async with self.client.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, user_id: str, path: str, **query: str) -> Any:
        """The JSON of a request that succeeds."""
        status, reply = await self.call(user_id, "GET", path, None, **query)
        assert status == 200, reply
        return reply

    async def refusal(self, user_id: str, path: str, **query: str) -> tuple[int, str]:
        """Status and errcode of a request that fails."""
        status, reply = await self.call(user_id, "GET", path, None, **query)
        return status, reply["errcode"]


async def believe(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    """Access tokens here are user ids."""
    return Requester(headers["Authorization"].removeprefix("Bearer "), "PHONE")


async def nobody(*_: object) -> str:
    raise MatrixError(401, "M_UNAUTHORIZED", "There are no other servers here")


@asynccontextmanager
async def room_server(db: Database, *, presence: bool = False) -> AsyncIterator[RoomServer]:
    """A running server."""
    server = RoomServer(await SyncServer.open(db, presence=presence))
    dispatcher = Dispatcher(
        server.routes(),
        authenticate_user=believe,
        authenticate_server=nobody,
        rate_limiter=RateLimiter({}, server.world.clock, enabled=False),
    )
    async with TestClient(RawTestServer(dispatcher)) as server.client:
        yield server


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")
