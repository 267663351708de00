"""What a request costs before and after its handler, counted: nothing is started, timed or walked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import RawTestServer
from structlog.testing import capture_logs
from yarl import URL

from homeserver import routing
from homeserver.appservices.authentication import Authentication
from homeserver.appservices.services import AppServices
from homeserver.clock import FakeClock
from homeserver.health import Metrics
from homeserver.protocol import canonical_json
from homeserver.ratelimit import Limit, RateLimiter
from homeserver.replies import Reply
from homeserver.storage import users
from homeserver.storage.database import Database, Transaction
from homeserver.users.last_seen import LastSeen
from homeserver.users.sessions import Sessions
from homeserver.web import Dispatcher, Request, Route
from tests.performance.counting import counted_calls, counted_statements, counted_tasks, suspensions

ALICE = "@alice:a.org"
REQUESTS = 20


async def send(request: Request) -> Reply:
    return {"event_id": request.json()["body"]}


async def sync(request: Request) -> Reply:
    return {"next_batch": request.query_text("since"), "timeout": request.query_int("timeout", 0)}


ROUTES = [
    Route("PUT", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", send, limit="message"),
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/state", sync),
    Route("GET", "/_matrix/client/v3/sync", sync),
]


class Client:
    """Alice's phone, on one connection that stays open; it counts how often the server waited."""

    def __init__(self, dispatcher: Dispatcher, token: str) -> None:
        self._dispatcher = dispatcher
        self._server = RawTestServer(self._count)
        self._http = ClientSession(headers={"Authorization": f"Bearer {token}"})
        self.waits = 0

    async def __aenter__(self) -> Client:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        await self._server.close()

    async def _count(self, http: web.BaseRequest) -> web.StreamResponse:
        answered = await suspensions(self._dispatcher(http))
        self.waits += answered.times
        return answered.result

    async def use(self, times: int) -> None:
        """Send messages and sync, so many times each."""
        for number in range(times):
            message = {"body": "$1", "deep": {"deeper": [{"deepest": number}]}}
            send_path = f"/_matrix/client/v3/rooms/!room%3Aa.org/send/m.room.message/{number}"
            sync_path = f"/_matrix/client/v3/sync?since={number}&timeout=5"
            assert await self._answer("PUT", send_path, json=message) == {"event_id": "$1"}
            assert await self._answer("GET", sync_path) == {"next_batch": str(number), "timeout": 5}

    async def _answer(self, method: str, path: str, **options: Any) -> Any:
        url = URL(f"{self._server.make_url('')}".rstrip("/") + path, encoded=True)
        async with self._http.request(method, url, **options) as response:
            return await response.json()


@pytest.fixture
async def client(sqlite_database: Database) -> AsyncIterator[Client]:
    """One who was here before, at a server that is wired as the real one is."""
    clock, services = FakeClock(), AppServices([], "a.org")
    sessions = Sessions(sqlite_database, clock)

    async def make_account(tx: Transaction) -> None:
        await users.add(tx, ALICE, password_hash=None, is_admin=False, created_at=0)

    await sqlite_database.write(make_account)
    login = await sessions.log_in(ALICE)

    async def no_server(*_: object) -> str:
        raise AssertionError("no server asks here")

    dispatcher = Dispatcher(
        ROUTES,
        authenticate_user=Authentication(
            sqlite_database, clock, services, sessions.authenticate
        ).authenticate,
        authenticate_server=no_server,
        rate_limiter=RateLimiter({"message": Limit(1000, 1000)}, clock),
        observe=Metrics().observe_request,
        is_unlimited=services.is_unlimited,
        note_use=LastSeen(sqlite_database, clock).note,
    )
    async with Client(dispatcher, login.access_token) as client:
        await client.use(1)
        client.waits = 0
        yield client


async def test_a_request_waits_for_nothing_but_its_handler(client: Client) -> None:
    await client.use(REQUESTS)
    assert client.waits == 0


async def test_no_task_and_no_timer_is_made_for_a_request(client: Client) -> None:
    with counted_tasks() as tasks, counted_calls(asyncio, "timeout") as timers:
        await client.use(REQUESTS)
    served = [name for name in tasks if not name.startswith("ClientRequest.")]
    # aiohttp makes one of its own.
    assert {*served} <= {"RequestHandler._handle_request"}
    assert len(served) <= 2 * REQUESTS
    assert timers == []


async def test_nothing_is_looked_up_for_a_caller_who_was_here_before(
    client: Client, sqlite_database: Database
) -> None:
    async with counted_statements(sqlite_database) as statements:
        await client.use(REQUESTS)
    assert len(statements) == 0


async def test_a_route_is_found_at_the_first_attempt_and_a_room_decoded_once(client: Client) -> None:
    decoded_before = routing._decode_or_remember.cache_info().misses
    with counted_calls(routing, "_search") as searches:
        await client.use(REQUESTS)
    assert searches == []
    assert routing._decode_or_remember.cache_info().misses == decoded_before


async def test_a_reply_needs_no_dictionary_of_headers_and_a_body_no_walk(client: Client) -> None:
    with (
        counted_calls(web.Response, "__init__") as responses,
        counted_calls(canonical_json, "_holds_float") as walks,
    ):
        await client.use(REQUESTS)
    assert (responses, walks) == ([], [])


async def test_a_request_makes_no_log_line_that_nobody_reads(client: Client) -> None:
    with capture_logs() as lines:
        await client.use(REQUESTS)
    assert lines == []
