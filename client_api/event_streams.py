"""The endpoints of before ``/sync``: the event stream, also into rooms one is not in, and initial syncs."""

from __future__ import annotations

import orjson

from homeserver.errors import missing_param, not_found
from homeserver.replies import Json, Reply
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History
from homeserver.sync.client_events import ClientEvents, Form
from homeserver.sync.event_stream import MAX_WAIT, EventStream, StreamRequest
from homeserver.sync.initial_sync import DEFAULT_LIMIT, MAX_LIMIT, InitialSync, InitialSyncRequest
from homeserver.sync.positions import SyncToken
from homeserver.web import Request

_MAX_TIMEOUT_MS = round(MAX_WAIT * 1000)


class EventStreamsApi:
    """Deprecated ways to read rooms."""

    def __init__(
        self,
        *,
        stream: EventStream,
        initial: InitialSync,
        events: EventCache,
        history: History,
        client_events: ClientEvents,
    ) -> None:
        self._stream = stream
        self._initial = initial
        self._events = events
        self._history = history
        self._client_events = client_events

    async def events(self, request: Request) -> Reply:
        """``GET /events``, with ``room_id`` for one room; guests have to name one."""
        requester, since = request.requester, request.query.get("from")
        room_id = request.query.get("room_id")
        if requester.is_guest and room_id is None:
            raise missing_param("Guests have to say which room: 'room_id' is missing")
        chunk = await self._stream.wait_and_collect(
            StreamRequest(
                user_id=requester.user_id,
                device_id=requester.device_id,
                since=SyncToken.parse(since) if since else None,
                timeout_ms=request.query_int("timeout", 0, maximum=_MAX_TIMEOUT_MS),
                room_id=room_id,
            )
        )
        return {"start": since or str(chunk.start), "end": str(chunk.end), "chunk": chunk.events}

    async def event(self, request: Request) -> Reply:
        """``GET /events/{eventId}``."""
        requester, event_id = request.requester, request.params["eventId"]
        stored = await self._events.by_id(event_id)
        if stored is None:
            raise not_found("There is no such event, or you may not see it")
        room, seen = await self._history.event(requester.user_id, stored.event.room_id, event_id)
        (event,) = await self._client_events.write(
            room, requester.user_id, requester.device_id, [seen], Form()
        )
        return Json(orjson.dumps(event))

    async def initial_sync(self, request: Request) -> Reply:
        """``GET /initialSync``."""
        return await self._initial.everything(_initial_sync(request, archived=request.query_bool("archived")))

    async def room_initial_sync(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/initialSync``."""
        return await self._initial.one_room(_initial_sync(request), request.params["roomId"])


def _initial_sync(request: Request, *, archived: bool = False) -> InitialSyncRequest:
    return InitialSyncRequest(
        user_id=request.requester.user_id,
        device_id=request.requester.device_id,
        limit=request.query_int("limit", DEFAULT_LIMIT, maximum=MAX_LIMIT),
        archived=archived,
    )
