"""Sending events (client-server API, "Sending events to a room" and "Redactions")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from homeserver.errors import bad_json, invalid_param, user_suspended
from homeserver.rooms.directory import CANONICAL_ALIAS, Directory
from homeserver.rooms.membership import Membership
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.related_redactions import RelatedRedactions, With
from homeserver.rooms.related_sends import RelatedSends
from homeserver.rooms.room import MEMBER
from homeserver.rooms.send import AlsoFor, Draft, Send
from homeserver.rooms.transactions import Transactions
from homeserver.storage.events import StoredEvent
from homeserver.web import Reply, Request

_REDACTION = "m.room.redaction"
#: The largest integer of canonical JSON.
_LATEST = 2**53 - 1
_MAX_REL_TYPES = 50


class SendApi:
    """Endpoints that put events into rooms."""

    def __init__(
        self,
        *,
        send: Send,
        membership: Membership,
        directory: Directory,
        redaction_rights: RedactionRights,
        transactions: Transactions,
        related: RelatedSends,
        related_redactions: RelatedRedactions,
    ) -> None:
        self._send = send
        self._membership = membership
        self._directory = directory
        self._redaction_rights = redaction_rights
        self._transactions = transactions
        self._related = related
        self._related_redactions = related_redactions

    async def send_message(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/send/{eventType}/{txnId}``."""
        content, type_ = request.json(), _type(request)

        async def send(also: AlsoFor) -> StoredEvent:
            return await self._message(request, type_, content, also)

        return await self._once(request, f"send {request.params['roomId']} {type_}", send)

    async def send_message_anew(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/send/{eventType}``: as often as it is asked for."""
        stored = await self._message(request, _type(request), request.json(), None)
        return {"event_id": stored.id}

    async def redact(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/redact/{eventId}/{txnId}``; also what relates to the event (MSC3912)."""
        content, event_id = request.json(empty_ok=True), request.params["eventId"]
        rel_types = _rel_types(content)
        if not isinstance(content.get("reason", ""), str):
            raise bad_json("'reason' must be a string")

        async def send(also: AlsoFor) -> StoredEvent:
            return await self._redact(request, event_id, content, also, rel_types)

        return await self._once(request, f"redact {request.params['roomId']} {event_id}", send)

    async def set_state(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/state/{eventType}/{stateKey}``, or without the state key."""
        content, type_ = request.json(), _type(request)
        sender, room_id = request.requester.user_id, request.params["roomId"]
        state_key = request.params.get("stateKey", "")
        leaves = type_ == MEMBER and state_key == sender and content.get("membership") == "leave"
        if request.requester.is_suspended and not leaves:
            raise user_suspended()
        if type_ == MEMBER:
            stored = await self._membership.set_member(
                sender, room_id, state_key, content, origin_server_ts=_time(request)
            )
            return {"event_id": stored.id}
        if type_ == _REDACTION:
            raise invalid_param("A redaction is not a state event")
        if type_ == CANONICAL_ALIAS and not state_key:
            await self._directory.check_canonical_alias(room_id, content)
        draft = Draft(sender, type_, content, state_key=state_key, origin_server_ts=_time(request))
        stored = await self._send.send(room_id, draft)
        return {"event_id": stored.id}

    async def _message(
        self, request: Request, type_: str, content: dict[str, Any], also: AlsoFor | None
    ) -> StoredEvent:
        if type_ == _REDACTION:
            return await self._redact(request, content.pop("redacts", None), content, also)
        if request.requester.is_suspended:
            raise user_suspended()
        draft = Draft(request.requester.user_id, type_, content, origin_server_ts=_time(request))
        room_id = request.params["roomId"]
        async with self._related.checked(room_id, draft):
            return await self._send.send(room_id, draft, also)

    async def _redact(
        self,
        request: Request,
        event_id: object,
        content: dict[str, Any],
        also: AlsoFor | None,
        rel_types: tuple[str, ...] = (),
    ) -> StoredEvent:
        if not isinstance(event_id, str):
            raise bad_json("A redaction needs the id of an event in 'redacts'")
        requester, room_id = request.requester, request.params["roomId"]
        await self._redaction_rights.check(
            requester.user_id, room_id, event_id, is_admin=requester.is_admin, own_only=requester.is_suspended
        )
        draft = Draft(requester.user_id, _REDACTION, content, redacts=event_id)
        if not rel_types:
            return await self._send.send(room_id, draft, also)
        wanted = With(rel_types, is_admin=requester.is_admin, own_only=requester.is_suspended)
        return await self._related_redactions.redact(room_id, draft, wanted, also)

    async def _once(
        self, request: Request, scope: str, send: Callable[[AlsoFor], Awaitable[StoredEvent]]
    ) -> Reply:
        requester, txn_id = request.requester, request.params["txnId"]
        event_id = await self._transactions.once(
            requester.user_id, requester.device_id or "", scope, txn_id, send
        )
        return {"event_id": event_id}


def _rel_types(content: dict[str, Any]) -> tuple[str, ...]:
    """The types of relations whose events are redacted too, taken out of a request's body."""
    stable = content.pop("with_rel_types", [])
    wanted = content.pop("org.matrix.msc3912.with_relations", stable)
    if not isinstance(wanted, list) or not all(isinstance(one, str) and len(one) <= 255 for one in wanted):
        raise bad_json("'with_rel_types' must be a list of types")
    if len(wanted) > _MAX_REL_TYPES:
        raise invalid_param(f"'with_rel_types' has at most {_MAX_REL_TYPES} types")
    return tuple(dict.fromkeys(wanted))


def _time(request: Request) -> int | None:
    """When an application service says that its event was sent (spec: "Timestamp massaging")."""
    if request.requester.appservice is None or "ts" not in request.query:
        return None
    ts = request.query_int("ts", 0, maximum=_LATEST + 1)
    if ts > _LATEST:
        raise invalid_param("'ts' is not a time that an event may have")
    return ts


def _type(request: Request) -> str:
    type_ = request.params["eventType"]
    if type_ == "m.room.create":
        raise invalid_param("A room is created only once")
    return type_
