"""Pushers and the list of notifications (client-server API, "Push Notifications")."""

from __future__ import annotations

import orjson

from homeserver.errors import invalid_param
from homeserver.push.pushers import Pushers, pusher_json
from homeserver.replies import Json, Reply
from homeserver.sync.notifications import MAX_LIMIT, Notifications, parse_token
from homeserver.web import Request

_DEFAULT_LIMIT = 20


class PushersApi:
    """Endpoints about where a user is told of what, and what they were told of."""

    def __init__(self, pushers: Pushers, notifications: Notifications) -> None:
        self._pushers = pushers
        self._notifications = notifications

    async def pushers(self, request: Request) -> Reply:
        """``GET /pushers``."""
        return {"pushers": [pusher_json(each) for each in await self._pushers.of(request.requester.user_id)]}

    async def set_pusher(self, request: Request) -> Reply:
        """``POST /pushers/set``."""
        requester = request.requester
        await self._pushers.set(requester.user_id, requester.device_id or "", request.json())
        return {}

    async def notifications(self, request: Request) -> Reply:
        """``GET /notifications``."""
        requester, only = request.requester, request.query.get("only")
        if only not in (None, "", "highlight"):
            raise invalid_param("'only' knows no value but 'highlight'")
        page = await self._notifications.page(
            requester.user_id,
            requester.device_id,
            before=parse_token(request.query.get("from") or None),
            limit=request.query_int("limit", _DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT),
            highlights=only == "highlight",
        )
        reply = {"notifications": page.notifications}
        token = {} if page.next_token is None else {"next_token": page.next_token}
        return Json(orjson.dumps({**reply, **token}))
