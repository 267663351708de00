"""Delayed events (MSC4140): scheduling, managing and looking them up.

Clients schedule them by a parameter of the endpoints that send at once, as the proposal had it before, or by
one of their own; each way has the errors that its clients know.  On the stable paths everything wants
an access token, as the proposal says now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import orjson

from client_api.sending import check_type, room_of, sticky_duration, time_of
from homeserver.errors import MatrixError, forbidden, invalid_param, user_suspended
from homeserver.replies import Reply
from homeserver.rooms.delayed_events import Action, DelayedEvents, DelayTooLong, TooManyScheduled
from homeserver.rooms.send import Draft
from homeserver.rooms.transactions import Transactions
from homeserver.storage.append import Also
from homeserver.storage.delayed_events import DelayedEvent
from homeserver.web import Request

DELAY = "org.matrix.msc4140.delay"
_PARENT = "org.matrix.msc4140.parent_delay_id"
_ERRCODE, _MAX_DELAY = "org.matrix.msc4140.errcode", "org.matrix.msc4140.max_delay"
_TOO_LONG, _TOO_MANY = "M_MAX_DELAY_EXCEEDED", "M_MAX_DELAYED_EVENTS_EXCEEDED"

#: Outcomes in one answer.
_PAGE = 50


class _Schedule(msgspec.Struct, frozen=True):
    delay_ms: int
    content: dict[str, Any]
    state_key: str | None = None


class _Manage(msgspec.Struct, frozen=True):
    action: str


class DelayedEventsApi:
    """Endpoints about events that are sent later."""

    def __init__(self, delayed: DelayedEvents, transactions: Transactions) -> None:
        self._delayed = delayed
        self._transactions = transactions

    async def schedule(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/delayed_event/{eventType}/{txnId}``."""

        def read() -> tuple[dict[str, Any], int, str | None]:
            asked = request.decode(_Schedule)
            if asked.delay_ms <= 0:
                raise invalid_param("'delay_ms' must be more than 0")
            return asked.content, asked.delay_ms, asked.state_key

        try:
            return await self._once(request, read)
        except DelayTooLong as error:
            raise forbidden(str(error), **{_MAX_DELAY: error.max_delay_ms}) from None
        except TooManyScheduled as error:
            after = max(1, error.next_in_ms)
            raise MatrixError(429, "M_LIMIT_EXCEEDED", str(error), retry_after_ms=after) from None

    async def by_parameter(self, request: Request, state_key: str | None) -> Reply:
        """The same by a parameter of ``PUT /rooms/{roomId}/send/…`` and ``…/state/…``.

        The latter have no transaction id: each such request counts.
        """
        if _PARENT in request.query:
            raise invalid_param("Delayed events cannot wait for each other")
        delay_ms = request.query_int(DELAY, 0, minimum=1)

        def read() -> tuple[dict[str, Any], int, str | None]:
            return request.json(), delay_ms, state_key

        try:
            return await self._once(request, read)
        except DelayTooLong as error:
            # COMPAT: matrix-js-sdk tries again with the delay that it finds here.
            fields = {_ERRCODE: _TOO_LONG, _MAX_DELAY: error.max_delay_ms}
            raise MatrixError(400, "M_UNKNOWN", str(error), **fields) from None
        except TooManyScheduled as error:
            # COMPAT: told to wait, matrix-js-sdk would not join a call before some other event is sent.
            raise MatrixError(400, "M_UNKNOWN", str(error), **{_ERRCODE: _TOO_MANY}) from None

    async def manage(self, request: Request) -> Reply:
        """``POST /delayed_events/{delayId}/{action}``."""
        return await self._manage(request, request.params["action"])

    async def manage_as_before(self, request: Request) -> Reply:
        """``POST /delayed_events/{delayId}``, with the action in the body."""
        return await self._manage(request, request.decode(_Manage).action)

    async def one(self, request: Request) -> Reply:
        """``GET /delayed_events/{delayId}``."""
        one = await self._delayed.one(request.requester.user_id, request.params["delayId"])
        return _described(one)

    async def all(self, request: Request) -> Reply:
        """``GET /delayed_events``: what is scheduled.

        COMPAT: matrix-js-sdk asks for a ``status``, ``scheduled`` or ``finalised``, and for some ids.
        """
        status = request.query_choice("status", "", ("scheduled", "finalised"))
        if status == "finalised":
            return await self._finalised(request)
        user_id, wanted = request.requester.user_id, request.query_all("delay_id")
        found = await (self._delayed.some(user_id, wanted) if wanted else self._delayed.scheduled(user_id))
        described = [_described(one) for one in found if one.is_scheduled]
        return {"scheduled" if status else "delayed_events": described}

    async def _finalised(self, request: Request) -> Reply:
        user_id, wanted = request.requester.user_id, request.query_all("delay_id")
        if wanted:
            found = await self._delayed.some(user_id, wanted)
            return {"finalised": [_outcome(one) for one in found if not one.is_scheduled]}
        before = _parse_page(request.query["from"]) if "from" in request.query else None
        found = await self._delayed.finalised(user_id, before, _PAGE)
        reply: dict[str, Any] = {"finalised": [_outcome(one) for one in found]}
        if len(found) == _PAGE:
            reply["next_batch"] = f"{found[-1].finalised_at}_{found[-1].delay_id}"
        return reply

    async def _manage(self, request: Request, action: str) -> Reply:
        requester = request.requester_if_any
        for known in get_args(Action):
            if action == known:
                await self._delayed.manage(
                    request.params["delayId"], known, requester.user_id if requester else None
                )
                return {}
        raise MatrixError(404, "M_UNRECOGNIZED", "There is no such action")

    async def _once(
        self, request: Request, read: Callable[[], tuple[dict[str, Any], int, str | None]]
    ) -> Reply:
        """Schedule what a request asks for; ``read`` gives its content, delay and state key."""
        requester, room_id, type_ = request.requester, room_of(request), check_type(request)
        if not self._delayed.max_scheduled:
            raise forbidden("This server does not allow delayed events")
        if requester.is_suspended:
            raise user_suspended()

        async def make(remember: Callable[[str], Also] | None) -> str:
            content, delay_ms, state_key = read()
            draft = Draft(
                requester.user_id,
                type_,
                content,
                state_key=state_key,
                origin_server_ts=time_of(request),
                sticky_ms=sticky_duration(request),
            )
            return await self._delayed.schedule(draft, room_id, delay_ms, remember)

        txn_id = request.params.get("txnId")
        if txn_id is None:
            return {"delay_id": await make(None)}
        scope = f"delay {room_id} {type_}"
        device_id = requester.device_id or ""
        delay_id = await self._transactions.once_for(requester.user_id, device_id, scope, txn_id, make)
        return {"delay_id": delay_id}


def _described(one: DelayedEvent) -> dict[str, Any]:
    """A delayed event as its owner is shown it.

    COMPAT: ``delay`` and ``running_since`` are what clients know ``delay_ms`` and ``scheduled_at`` as.
    """
    shown: dict[str, Any] = {
        "delay_id": one.delay_id,
        "room_id": one.room_id,
        "type": one.type,
        "delay_ms": one.delay_ms,
        "scheduled_at": one.scheduled_at,
        "delay": one.delay_ms,
        "running_since": one.scheduled_at,
        "content": orjson.Fragment(one.content),
    }
    optional = {
        "state_key": one.state_key,
        "finalised_ts": one.finalised_at,
        "event_id": one.event_id,
        "error": None if one.error is None else orjson.Fragment(one.error),
    }
    return shown | {name: value for name, value in optional.items() if value is not None}


def _outcome(one: DelayedEvent) -> dict[str, Any]:
    """The outcome of a delayed event as the proposal had it before."""
    sent = one.event_id is not None
    by_itself = one.error is not None or (sent and (one.finalised_at or 0) >= one.due_at)
    reason = ("error" if one.error is not None else "delay") if by_itself else "action"
    described = _described(one)
    outcome = {name: described[name] for name in ("error", "event_id") if name in described}
    return {
        "delayed_event": described,
        "outcome": "send" if sent else "cancel",
        "reason": reason,
        "origin_server_ts": one.finalised_at,
    } | outcome


def _parse_page(token: str) -> tuple[int, str]:
    at, _, delay_id = token.partition("_")
    if not (at.isascii() and at.isdigit() and len(at) <= 16):
        raise invalid_param("'from' is not a token of this list")
    return int(at), delay_id
