"""``POST`` sliding sync in both its forms (MSC4186)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.errors import bad_json, invalid_param
from homeserver.replies import Reply
from homeserver.sync.sliding import parsing
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.sync.sliding.sliding_sync import SlidingSync
from homeserver.users.presence import STATES, PresenceState
from homeserver.web import Request

_MAX_TIMEOUT_MS = 120_000


class SlidingSyncApi:
    """The endpoints of clients that look at some of their rooms at a time."""

    def __init__(self, sliding: SlidingSync) -> None:
        self._sliding = sliding

    async def unstable(self, request: Request) -> Reply:
        """``POST /unstable/org.matrix.simplified_msc3575/sync``, as clients send it today."""
        presence = request.query_choice("set_presence", "online", STATES)
        return await self._sliding.wait_and_collect(
            self._request(
                request,
                request.json(empty_ok=True),
                stable=False,
                pos=request.query.get("pos") or None,
                timeout_ms=request.query_int("timeout", 0),
                presence=presence,
            )
        )

    async def stable(self, request: Request) -> Reply:
        """``POST /v4/sync``, as it is proposed."""
        body = request.json(empty_ok=True)
        timeout, pos = body.get("timeout", 0), body.get("pos")
        if not isinstance(timeout, int) or isinstance(timeout, bool):
            raise bad_json("'timeout' must be an integer")
        if timeout < 0:
            raise invalid_param("'timeout' must not be negative")
        if pos is not None and not isinstance(pos, str):
            raise bad_json("'pos' must be a string")
        presence = parsing.text(body, "set_presence") or "online"
        return await self._sliding.wait_and_collect(
            self._request(request, body, stable=True, pos=pos, timeout_ms=timeout, presence=presence)
        )

    def _request(
        self,
        request: Request,
        body: Mapping[str, Any],
        *,
        stable: bool,
        pos: str | None,
        timeout_ms: int,
        presence: str,
    ) -> SlidingRequest:
        requester = request.requester
        return SlidingRequest(
            user_id=requester.user_id,
            device_id=requester.device_id,
            stable=stable,
            conn_id=parsing.text(body, "conn_id") or "",
            pos=pos,
            timeout_ms=min(timeout_ms, _MAX_TIMEOUT_MS),
            set_presence=_presence(presence),
            txn_id=None if stable else parsing.text(body, "txn_id"),
            lists=parsing.lists(body, requester.user_id, stable=stable),
            subscriptions=parsing.subscriptions(body, requester.user_id, stable=stable),
            extensions=parsing.extensions(body, self._sliding.extension_names),
        )


def _presence(text: str) -> PresenceState:
    found = next((state for state in STATES if state == text), None)
    if found is None:
        raise invalid_param("'set_presence' is none of the states of presence")
    return found
