"""An application service over real HTTP that remembers what it is told, and a server that knows it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from homeserver.addresses import address_policy
from homeserver.config.appservices import Namespace, Namespaces, Registration
from homeserver.egress import Egress, open_session, tls_context
from homeserver.storage.database import Database
from tests.client_api.account_server import V3, AccountServer, account_server

AS_TOKEN, HS_TOKEN = "as token of the bridge", "hs token of the bridge"
BOT = "@_fake_bot:a.org"


@dataclass
class BridgeApp:
    """The service.  ``status`` is what it answers transactions with; 200 is the only one it acts on."""

    status: int = 200
    users: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    #: Path below ``/thirdparty/`` to the JSON of the answer.
    networks: dict[str, Any] = field(default_factory=dict)
    ping_status: int = 200
    #: Whether it knows the older paths alone.
    legacy: bool = False
    #: Every attempt at a transaction: its id, and the body as bytes.
    attempts: list[tuple[str, bytes]] = field(default_factory=list)
    #: The transactions it took, by id.
    transactions: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    #: Called before it says whether there is a user or alias.
    on_query: Any = None

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events it was told of."""
        return [event for body in self.transactions.values() for event in body["events"]]

    def all_of(self, name: str) -> list[Any]:
        """What came under another key of transactions."""
        return [value for body in self.transactions.values() for value in body.get(name, [])]

    @property
    def texts(self) -> list[str]:
        """The texts of the messages it was told of."""
        return [event["content"]["body"] for event in self.events if event["type"] == "m.room.message"]

    async def answer(self, request: web.Request) -> web.Response:
        """Every request."""
        path = request.path
        if request.headers.get("Authorization") != f"Bearer {HS_TOKEN}":
            return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)
        modern = path.startswith("/_matrix/app/v1/")
        if modern == self.legacy:
            return web.Response(status=404)
        if self.legacy and request.query.get("access_token") != HS_TOKEN:
            return web.Response(status=403)
        kind, _, rest = path.removeprefix("/_matrix/app/v1").lstrip("/").partition("/")
        if kind == "transactions":
            return await self._transaction(request, rest)
        if kind == "ping":
            self.asked.append(await request.text())
            return web.json_response({} if self.ping_status == 200 else {"no": 1}, status=self.ping_status)
        self.asked.append(f"{kind}/{rest}" + (f"?{request.query_string}" if request.query_string else ""))
        if kind == "thirdparty":
            found = self.networks.get(rest)
            return web.json_response(found, status=200 if found is not None else 404)
        if self.on_query is not None:
            await self.on_query(rest)
        return web.json_response({}, status={**self.users, **self.aliases}.get(rest, 404))

    async def _transaction(self, request: web.Request, txn_id: str) -> web.Response:
        body = await request.read()
        self.attempts.append((txn_id, body))
        if self.status == 200:
            self.transactions[txn_id] = await request.json()
        return web.json_response({}, status=self.status)


def registration(url: str | None, **fields: Any) -> Registration:
    """The registration of a bridge whose ghosts are ``@_fake_…`` and whose aliases ``#_fake_…``."""
    namespaces = Namespaces(
        users=(Namespace(regex=re.compile(r"@_fake_.*:a\.org"), exclusive=True),),
        aliases=(Namespace(regex=re.compile(r"#_fake_.*:a\.org"), exclusive=True),),
    )
    given: dict[str, Any] = {
        "id": "fake",
        "url": url,
        "as_token": AS_TOKEN,
        "hs_token": HS_TOKEN,
        "sender_localpart": "_fake_bot",
        "namespaces": namespaces,
        "rate_limited": False,
        "receive_ephemeral": True,
        "encryption": True,
    }
    return Registration(**{**given, **fields})


@dataclass
class Bridged:
    """A server with a bridge."""

    server: AccountServer
    app: BridgeApp

    async def as_bridge(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str
    ) -> tuple[int, Any]:
        """Status and JSON of a request with the bridge's token; ``path`` as ``AccountServer.call`` has it."""
        target = path if path.startswith("/_matrix") else V3 + path
        url = URL(target, encoded=True).update_query(query)
        headers = {"Authorization": f"Bearer {AS_TOKEN}"}
        async with self.server.client.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def ghost(self, name: str) -> str:
        """A user of the bridge."""
        user_id = f"@_fake_{name}:a.org"
        wanted = {"type": "m.login.application_service", "username": f"_fake_{name}", "inhibit_login": True}
        assert await self.as_bridge("POST", "/register", wanted) == (200, {"user_id": user_id})
        return user_id

    async def room(self, token: str, **wish: Any) -> str:
        """A room that everybody may join, made by a person."""
        wish = {"preset": "public_chat", **wish}
        status, made = await self.server.call("POST", "/createRoom", wish, token=token)
        assert status == 200, made
        return str(made["room_id"])

    async def say(self, token: str, room_id: str, text: str) -> None:
        """A person says something."""
        body = {"msgtype": "m.text", "body": text}
        path = f"/rooms/{quote(room_id)}/send/m.room.message"
        assert (await self.server.call("POST", path, body, token=token))[0] == 200

    async def join(self, user_id: str, room_id: str) -> None:
        """A user of the bridge joins."""
        status, reply = await self.as_bridge("POST", f"/join/{quote(room_id)}", {}, user_id=user_id)
        assert status == 200, reply

    async def delivered(self) -> None:
        """Wait until everything has been sent that can be."""
        await self.server.services.traffic.idle()

    async def later(self, seconds: float) -> None:
        """Time goes by, and whoever waited for that acts."""
        self.server.clock.advance(seconds)
        await self.server.services.traffic.tick()
        await self.delivered()


@asynccontextmanager
async def http_out() -> AsyncIterator[Egress]:
    """The way out over HTTP."""
    session = open_session(address_policy(denied=()), tls_context())
    try:
        yield Egress(session)
    finally:
        await session.close()


@asynccontextmanager
async def bridged(db: Database, app: BridgeApp | None = None, **fields: Any) -> AsyncIterator[Bridged]:
    """A server with one bridge; ``fields`` are those of its registration that are to be different."""
    app = app or BridgeApp()
    web_app = web.Application(client_max_size=1024 * 1024)
    web_app.router.add_route("*", "/{path:.*}", app.answer)
    async with TestServer(web_app) as listening, http_out() as http:
        app.url = str(listening.make_url("")).rstrip("/")
        url = fields.pop("url", app.url)
        async with account_server(db, bridges=[registration(url, **fields)], http=http) as server:
            yield Bridged(server, app)
