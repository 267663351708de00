"""A server that lies: it has keys, users and rooms as any other, and answers what a test tells it to.

Built on the honest server of ``tests/remote.py``, so that it can join rooms and host them; whatever it
has not been told to lie about it answers truthfully.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from itertools import count
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, unquote

from federation.signatures import authorization_header
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import SigningKey, event_id_of, sign_event
from homeserver.rooms.send import Draft
from tests.remote import Server

Pdu: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request that was answered with a lie."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes | None

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass(frozen=True)
class Reply:
    """A lie with a status, or one that is no JSON."""

    body: Any
    status: int = 200


#: What is answered, or what makes it: anything that is not a ``Reply`` is sent as JSON.
Lie: TypeAlias = Any


class HostilePeer(Server):
    """Lies about the endpoints in ``lies``, by a piece of their path."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.lies: dict[str, Lie] = {}
        self._numbers = count(1)

    def lies_about(self, endpoint: str, lie: Lie) -> None:
        """Answer with ``lie`` from now on; one that can be called is given the request."""
        self.lies[endpoint] = lie

    def tells_the_truth(self) -> None:
        """Answer honestly from now on."""
        self.lies.clear()

    async def exchange(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Status and body of the response to a request."""
        path, _, query = uri.partition("?")
        for endpoint, lie in self.lies.items():
            if f"/{endpoint}" in path:
                return await _told(lie, Asked(method, unquote(path), parse_qs(query), body))
        return await super().exchange(method, uri, headers, body)

    async def template(
        self, room_id: str, sender: str, type_: str, content: Any, *, state_key: str | None = None
    ) -> Pdu:
        """An event as the room's state here would have it, unsigned and not judged."""
        async with self.rooms.lock(room_id) as room:
            pdu, _ = await self.send.template(room, Draft(sender, type_, content, state_key=state_key))
        return dict(pdu)

    async def message(self, room_id: str, sender: str, body: str = "x", **changed: Any) -> Pdu:
        """A signed text message; fields may be ``changed`` before it is signed."""
        return await self.event(
            room_id, sender, "m.room.message", {"msgtype": "m.text", "body": body}, **changed
        )

    async def event(
        self,
        room_id: str,
        sender: str,
        type_: str,
        content: Any,
        *,
        state_key: str | None = None,
        **changed: Any,
    ) -> Pdu:
        """A signed event; fields may be ``changed`` before it is signed."""
        pdu = await self.template(room_id, sender, type_, content, state_key=state_key)
        return self.signed({**pdu, **changed}, await self.rules(room_id))

    async def rules(self, room_id: str) -> RoomVersion:
        return (await self.room(room_id)).rules

    def signed(
        self, pdu: Pdu, rules: RoomVersion, *, key: SigningKey | None = None, name: str | None = None
    ) -> Pdu:
        """The event with its hash and a signature of this server (or in another's name)."""
        if not rules.event_id_is_hash:
            pdu = {"event_id": f"$lie{next(self._numbers)}:{self.name}", **pdu}
        return sign_event(pdu, rules, name or self.name, key or self.key)

    async def state_at_tips(self, room_id: str) -> dict[tuple[str, str], Event]:
        """The room's state as this server has it."""
        room = await self.room(room_id)
        found = await self.states.events_at(room, room.state_ver)
        return {key: stored.event for key, stored in found.items()}

    async def sends(self, to: Server, *pdus: Pdu, edus: list[Any] | None = None, id: str = "") -> Any:
        """One transaction; what each PDU is answered with, by event id."""
        body = {"origin": self.name, "origin_server_ts": 1, "pdus": list(pdus), "edus": edus or []}
        return await self.client.send_transaction(to.name, id or f"t{next(self._numbers)}", body)

    async def sends_one(self, to: Server, pdu: Pdu) -> str:
        """Why a PDU was refused; empty where it was taken."""
        results = await self.sends(to, pdu)
        assert len(results) == 1
        (result,) = results.values()
        return str(result.get("error", ""))

    async def asks(
        self,
        to: Server,
        method: str,
        *segments: str,
        query: str = "",
        content: Any = None,
        header: Callable[..., str] | None = None,
    ) -> tuple[int, Any]:
        """A signed request to a path of ``segments``: status and JSON of the answer."""
        uri = "/_matrix/federation/" + "/".join(quote(segment, safe="") for segment in segments) + query
        body = None if content is None else encode(content)
        headers = {"Content-Type": "application/json"}
        headers["Authorization"] = authorization_header(
            method=method, uri=uri, origin=self.name, destination=to.name, body=body, key=self.key
        )
        return await to.answer(method, uri, headers, body)

    async def id_of(self, room_id: str, pdu: Pdu) -> str:
        return event_id_of(pdu, await self.rules(room_id))


async def _told(lie: Lie, asked: Asked) -> tuple[int, bytes]:
    answer: Lie | Awaitable[Lie] = lie(asked) if callable(lie) else lie
    if isawaitable(answer):
        answer = await answer
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    return reply.status, body
