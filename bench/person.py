"""A user of one of the servers, with a connection of their own."""

from __future__ import annotations

import itertools
import json
import secrets
from typing import Any
from urllib.parse import quote

from bench.connection import Connection, Unexpected
from tests.processes import Server

_API = "/_matrix/client/v3"
_SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_PASSWORD = "a password for the benchmark"


class Person:
    """What the scenarios do; every reply is checked."""

    def __init__(self, server: Server, user_id: str, token: str, connection: Connection) -> None:
        self.user_id = user_id
        self._server = server
        self._token = token
        self._connection = connection
        self._transactions = itertools.count()

    @classmethod
    async def register(cls, server: Server) -> Person:
        """A new account under a random name."""
        connection = Connection(server.client_url)
        account = {
            "username": f"u{secrets.token_hex(8)}",
            "password": _PASSWORD,
            "auth": {"type": "m.login.dummy"},
        }
        session = json.loads(await connection.request("POST", f"{_API}/register", body=account))
        return cls(server, session["user_id"], session["access_token"], connection)

    async def on_a_new_device(self) -> Person:
        """The same person, logged in once more."""
        connection = Connection(self._server.client_url)
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": _PASSWORD,
        }
        session = json.loads(await connection.request("POST", f"{_API}/login", body=login))
        return Person(self._server, self.user_id, session["access_token"], connection)

    async def create_room(self, name: str) -> str:
        """A public room; returns its id."""
        room = {"preset": "public_chat", "name": name, "room_version": "12"}
        return str((await self._call("POST", "/createRoom", room))["room_id"])

    async def join(self, room_id: str, *, through: str | None = None) -> None:
        """Join a room of the same server, or one of another ``through`` it."""
        if through is None:
            await self._call("POST", f"/rooms/{quote(room_id)}/join", {})
            return
        servers = f"via={quote(through)}&server_name={quote(through)}"
        await self._call("POST", f"/join/{quote(room_id)}?{servers}", {})

    async def members(self, room_id: str) -> set[str]:
        """Everybody who is joined to a room, once the server knows."""
        reply = await self._call("GET", f"/rooms/{quote(room_id)}/members?membership=join", None)
        return {event["state_key"] for event in reply["chunk"]}

    async def send(self, room_id: str, text: str) -> str:
        """Send a message; returns its event id."""
        target = f"{_API}/rooms/{quote(room_id)}/send/m.room.message/t{next(self._transactions)}"
        content = {"msgtype": "m.text", "body": text}
        answer = await self._connection.request("PUT", target, token=self._token, body=content)
        event_id = json.loads(answer).get("event_id", "")
        if not event_id.startswith("$"):
            raise Unexpected(f"sent, but without an event id: {answer!r}")
        return str(event_id)

    async def sync(self, since: str = "", *, wait_ms: int = 0) -> bytes:
        """The reply to ``/sync`` as it came."""
        target = f"{_API}/sync?timeout={wait_ms}" + (f"&since={quote(since)}" if since else "")
        return await self._connection.request("GET", target, token=self._token)

    async def sliding_sync(self, pos: str = "") -> bytes:
        """The reply to a request of sliding sync for the 20 latest rooms, as it came."""
        required = [["m.room.create", ""], ["m.room.name", ""], ["m.room.member", "$LAZY"]]
        window = {"ranges": [[0, 19]], "timeline_limit": 1, "required_state": required}
        target = f"{_SLIDING}?timeout=0" + (f"&pos={quote(pos)}" if pos else "")
        body = {"conn_id": "bench", "lists": {"all": window}}
        return await self._connection.request("POST", target, token=self._token, body=body)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        answer = await self._connection.request(method, _API + path, token=self._token, body=body)
        reply: dict[str, Any] = json.loads(answer)
        return reply
