"""A user of one of the servers, with a connection of their own."""

from __future__ import annotations

import itertools
import secrets
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from bench.generator.connection import Connection, Unexpected

_API = "/_matrix/client/v3"
_SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_PASSWORD = "a password for the benchmark"


class ServesClients(Protocol):
    """A server as far as a client needs to know it."""

    @property
    def client_url(self) -> str:
        """Where the client API is."""


class Person:
    """What the scenarios do; every reply is checked."""

    def __init__(self, server: ServesClients, user_id: str, token: str, connection: Connection) -> None:
        self.user_id = user_id
        self.connection = connection
        self._server = server
        self._authorization = f"Bearer {token}"
        self._transactions = itertools.count()
        self._position = ""

    @classmethod
    async def register(cls, server: ServesClients) -> Person:
        """A new account under a random name."""
        connection = Connection(server.client_url)
        account = {
            "username": f"u{secrets.token_hex(8)}",
            "password": _PASSWORD,
            "auth": {"type": "m.login.dummy"},
        }
        session = orjson.loads(await connection.request("POST", f"{_API}/register", body=account))
        return cls(server, session["user_id"], session["access_token"], connection)

    @classmethod
    async def of_service(
        cls, server: ServesClients, service: Connection, token: str, localpart: str
    ) -> Person:
        """An account that an application service registers over a connection of its own, by its token."""
        account = {"type": "m.login.application_service", "username": localpart}
        answer = await service.request(
            "POST", f"{_API}/register", authorization=f"Bearer {token}", body=account
        )
        session = orjson.loads(answer)
        return cls(server, session["user_id"], session["access_token"], Connection(server.client_url))

    async def on_a_new_device(self) -> Person:
        """The same person, logged in once more."""
        connection = Connection(self._server.client_url)
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": _PASSWORD,
        }
        session = orjson.loads(await connection.request("POST", f"{_API}/login", body=login))
        return Person(self._server, self.user_id, session["access_token"], connection)

    async def create_room(self, name: str) -> str:
        """A public room; returns its id."""
        room = {"preset": "public_chat", "name": name, "room_version": "12"}
        room_id = str((await self.call("POST", "/createRoom", room))["room_id"])
        if not room_id.startswith("!"):
            raise Unexpected(f"a room was made without an id: {room_id!r}")
        return room_id

    async def join(self, room_id: str, *, through: str | None = None) -> None:
        """Join a room of the same server, or one of another ``through`` it."""
        if through is None:
            reply = await self.call("POST", f"/rooms/{quote(room_id)}/join", {})
        else:
            servers = f"via={quote(through)}&server_name={quote(through)}"
            reply = await self.call("POST", f"/join/{quote(room_id)}?{servers}", {})
        if reply != {"room_id": room_id}:
            raise Unexpected(f"joined {room_id}, and was told {reply}")

    async def leave(self, room_id: str) -> None:
        """Leave a room."""
        await self.call("POST", f"/rooms/{quote(room_id)}/leave", {})

    async def members(self, room_id: str) -> set[str]:
        """Everybody who is joined to a room, once the server knows."""
        reply = await self.call("GET", f"/rooms/{quote(room_id)}/members?membership=join")
        return {event["state_key"] for event in reply["chunk"]}

    async def send(self, room_id: str, text: str) -> str:
        """Send a message; returns its event id."""
        path = f"/rooms/{quote(room_id)}/send/m.room.message/t{next(self._transactions)}"
        return _event_id(await self.call("PUT", path, {"msgtype": "m.text", "body": text}))

    async def set_state(self, room_id: str, type_: str, content: dict[str, Any], key: str = "") -> str:
        """Set a piece of state; returns the event's id."""
        path = f"/rooms/{quote(room_id)}/state/{quote(type_)}/{quote(key)}"
        return _event_id(await self.call("PUT", path, content))

    async def sync(self, since: str = "", *, wait_ms: int = 0, filter_: str = "") -> bytes:
        """The reply to ``/sync`` as it came; ``filter_`` is the JSON of a filter."""
        target = f"{_API}/sync?timeout={wait_ms}"
        if since:
            target += f"&since={quote(since)}"
        if filter_:
            target += f"&filter={quote(filter_)}"
        return await self.request("GET", target)

    async def position(self) -> str:
        """Where ``/sync`` goes on from, learnt with as little else as can be.

        Each time from where the last one ended: servers answer a repeated request from memory.
        """
        nothing = '{"room":{"rooms":[]},"presence":{"types":[]},"account_data":{"types":[]}}'
        told = orjson.loads(await self.sync(self._position, filter_=nothing))
        self._position = str(told["next_batch"])
        return self._position

    async def page(self, room_id: str, start: str = "", *, limit: int = 50) -> tuple[list[Any], str]:
        """Events of a room, newest first, and where the page before them begins ("" at the room's start)."""
        path = f"/rooms/{quote(room_id)}/messages?dir=b&limit={limit}"
        reply = await self.call("GET", path + (f"&from={quote(start)}" if start else ""))
        return reply["chunk"], reply.get("end", "")

    async def has_event(self, room_id: str, event_id: str) -> bool:
        """Whether an event is in the room for this person."""
        try:
            reply = await self.call("GET", f"/rooms/{quote(room_id)}/event/{quote(event_id)}")
        except Unexpected as refused:
            if ": 404 " in str(refused):
                return False
            raise
        return bool(reply["event_id"] == event_id)

    async def sliding_sync(self, pos: str = "") -> bytes:
        """The reply to a request of sliding sync for the 20 latest rooms, as it came."""
        required = [["m.room.create", ""], ["m.room.name", ""], ["m.room.member", "$LAZY"]]
        window = {"ranges": [[0, 19]], "timeline_limit": 1, "required_state": required}
        target = f"{_SLIDING}?timeout=0" + (f"&pos={quote(pos)}" if pos else "")
        body = {"conn_id": "bench", "lists": {"all": window}}
        return await self.request("POST", target, body)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the reply to a request below ``/_matrix/client/v3``."""
        return orjson.loads(await self.request(method, _API + path, body))

    async def request(self, method: str, target: str, body: Any = None) -> bytes:
        """The body of the reply to any request."""
        return await self.connection.request(method, target, authorization=self._authorization, body=body)


def _event_id(reply: Any) -> str:
    event_id = reply.get("event_id", "")
    if not event_id.startswith("$"):
        raise Unexpected(f"sent, but without an event id: {reply!r}")
    return str(event_id)
