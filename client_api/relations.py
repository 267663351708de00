"""Relations between events, and threads (client-server API, "Relationships API", "Threading")."""

from __future__ import annotations

from typing import Any, cast

from homeserver.replies import Reply
from homeserver.rooms.history import History
from homeserver.rooms.relations import Include, Relations, Span
from homeserver.storage.relations import MAX_DEPTH, Wanted
from homeserver.sync.client_events import ClientEvents, Form
from homeserver.sync.positions import SyncToken
from homeserver.web import Request

_DEFAULT_LIMIT = 20
_MAX_LIMIT = 200

_FORM = Form()


class RelationsApi:
    """Endpoints that find events by what they relate to."""

    def __init__(self, relations: Relations, history: History, client_events: ClientEvents) -> None:
        self._relations = relations
        self._history = history
        self._client_events = client_events

    async def children(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/relations/{eventId}``, also with ``/{relType}`` and ``/{eventType}``."""
        requester, params = request.requester, request.params
        recurse = request.query_bool("recurse")
        span = Span(
            _position(request, "from"),
            _position(request, "to"),
            _limit(request),
            request.query_choice("dir", "b", ("b", "f")) == "b",
        )
        room, page = await self._relations.children(
            requester.user_id,
            params["roomId"],
            params["eventId"],
            Wanted(params.get("relType"), params.get("eventType"), recurse),
            span,
        )
        reply: dict[str, Any] = {
            "chunk": await self._client_events.write(
                room, requester.user_id, requester.device_id, page.events, _FORM
            )
        }
        if page.end is not None:
            reply["next_batch"] = str(SyncToken(page.end))
        if request.query.get("from"):
            reply["prev_batch"] = request.query["from"]
        if "recurse" in request.query:
            reply["recursion_depth"] = MAX_DEPTH if recurse else 1
        return reply

    async def threads(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/threads``."""
        requester = request.requester
        include = cast("Include", request.query_choice("include", "all", ("all", "participated")))
        start, limit = _position(request, "from"), _limit(request)
        view = await self._history.view(requester.user_id, request.params["roomId"])
        page = await self._relations.threads(view, include, start, limit)
        reply: dict[str, Any] = {
            "chunk": await self._client_events.write(
                view.room, requester.user_id, requester.device_id, page.events, _FORM
            )
        }
        if page.end is not None:
            reply["next_batch"] = str(SyncToken(page.end))
        return reply


def _limit(request: Request) -> int:
    return min(request.query_int("limit", _DEFAULT_LIMIT, minimum=1), _MAX_LIMIT)


def _position(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    return SyncToken.parse(text).pos if text else None
