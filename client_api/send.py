"""Sending events (client-server API, "Sending events to a room" and "Redactions")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from client_api.delayed_events import DELAY, DelayedEventsApi
from client_api.sending import check_type, sticky_duration, time_of
from homeserver.errors import bad_json, invalid_param
from homeserver.replies import Reply
from homeserver.rooms.send import AlsoFor, Draft
from homeserver.rooms.submit import REDACTION, Submit
from homeserver.rooms.transactions import Transactions
from homeserver.storage.events import StoredEvent
from homeserver.web import Request

_MAX_REL_TYPES = 50


class SendApi:
    """Endpoints that put events into rooms."""

    def __init__(self, submit: Submit, transactions: Transactions, delayed: DelayedEventsApi) -> None:
        self._submit = submit
        self._transactions = transactions
        self._delayed = delayed

    async def send_message(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/send/{eventType}/{txnId}``."""
        if DELAY in request.query:
            return await self._delayed.by_parameter(request, None)
        draft = _draft(request, check_type(request), request.json())

        async def send(also: AlsoFor) -> StoredEvent:
            return await self._submit.submit(request.requester, request.params["roomId"], draft, also)

        return await self._once(request, f"send {request.params['roomId']} {draft.type}", send)

    async def send_message_anew(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/send/{eventType}``: as often as it is asked for."""
        draft = _draft(request, check_type(request), request.json())
        stored = await self._submit.submit(request.requester, request.params["roomId"], draft)
        return {"event_id": stored.id}

    async def redact(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/redact/{eventId}/{txnId}``; also what relates to the event (MSC3912)."""
        content, event_id = request.json(empty_ok=True), request.params["eventId"]
        rel_types = _rel_types(content)
        if not isinstance(content.get("reason", ""), str):
            raise bad_json("'reason' must be a string")
        draft = Draft(request.requester.user_id, REDACTION, content, redacts=event_id)

        async def send(also: AlsoFor) -> StoredEvent:
            return await self._submit.redact(
                request.requester, request.params["roomId"], draft, also, rel_types
            )

        return await self._once(request, f"redact {request.params['roomId']} {event_id}", send)

    async def set_state(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/state/{eventType}/{stateKey}``, or without the state key."""
        state_key = request.params.get("stateKey", "")
        if DELAY in request.query:
            return await self._delayed.by_parameter(request, state_key)
        draft = _draft(request, check_type(request), request.json(), state_key)
        stored = await self._submit.submit(request.requester, request.params["roomId"], draft)
        return {"event_id": stored.id}

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


def _draft(request: Request, type_: str, content: dict[str, Any], state_key: str | None = None) -> Draft:
    """What a request wants to be sent."""
    return Draft(
        request.requester.user_id,
        type_,
        content,
        state_key=state_key,
        origin_server_ts=time_of(request),
        sticky_ms=sticky_duration(request),
    )
