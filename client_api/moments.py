"""Jumping to a date (client-server API, ``GET /rooms/{roomId}/timestamp_to_event``)."""

from __future__ import annotations

from homeserver.replies import Reply
from homeserver.rooms.moments import Moments, parse_direction
from homeserver.web import Request


class MomentsApi:
    """The endpoint that finds an event by its time."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    async def closest(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/timestamp_to_event``."""
        request.query_text("ts")
        stored = await self._moments.closest_for_user(
            request.requester.user_id,
            request.params["roomId"],
            request.query_int("ts", 0),
            parse_direction(request.query_text("dir")),
        )
        return {"event_id": stored.id, "origin_server_ts": stored.event.origin_server_ts}
