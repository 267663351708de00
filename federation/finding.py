"""Showing other servers which rooms there are, what spaces hold, and which event was when.

Specification: server-server API, "Published Room Directory", "Spaces", "Backfilling and
retrieving missing events" (``/timestamp_to_event``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from federation.visible_events import VisibleEvents
from homeserver.errors import forbidden, not_found
from homeserver.replies import Reply
from homeserver.rooms.hierarchy import Hierarchy
from homeserver.rooms.moments import Moments, parse_direction
from homeserver.rooms.published import PublishedRooms, Wanted
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import check_may_take_part
from homeserver.storage.events import StoredEvent
from homeserver.web import Request

#: What a server may see takes the state at each event to know.
_MOST_LOOKED_AT: Final = 100


class FindingEndpoints:
    """The endpoints by which other servers find rooms and events."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        published: PublishedRooms,
        hierarchy: Hierarchy,
        moments: Moments,
        visible: VisibleEvents,
        lists_rooms: bool,
    ) -> None:
        self._rooms = rooms
        self._published = published
        self._hierarchy = hierarchy
        self._moments = moments
        self._visible = visible
        self._lists_rooms = lists_rooms

    async def public_rooms(self, request: Request) -> Reply:
        """``GET /publicRooms``."""
        wanted = Wanted(
            limit=request.query_int("limit", 0),
            since=request.query.get("since"),
            include_all_networks=request.query_bool("include_all_networks"),
            third_party_instance_id=request.query.get("third_party_instance_id"),
        )
        return await self._page(wanted)

    async def search_public_rooms(self, request: Request) -> Reply:
        """``POST /publicRooms``."""
        return await self._page(request.decode(Wanted, empty_ok=True))

    async def hierarchy(self, request: Request) -> Reply:
        """``GET /hierarchy/{roomId}``."""
        return await self._hierarchy.for_server(
            request.origin,
            request.params["roomId"],
            suggested_only=request.query_bool("suggested_only"),
        )

    async def timestamp_to_event(self, request: Request) -> Reply:
        """``GET /timestamp_to_event/{roomId}``."""
        request.query_text("ts")
        ts, direction = request.query_int("ts", 0), parse_direction(request.query_text("dir"))
        room = await self._rooms.get(request.params["roomId"])
        if not room.servers.get(request.origin):
            raise forbidden("Your server is not in the room")
        check_may_take_part(room, request.origin)

        async def may_see(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
            return await self._visible.among(room, request.origin, events)

        found = await self._moments.closest_here(room, ts, direction, may_see, most=_MOST_LOOKED_AT)
        if found is None:
            raise not_found("There is no event in that direction")
        return {"event_id": found.id, "origin_server_ts": found.event.origin_server_ts}

    async def _page(self, wanted: Wanted) -> Reply:
        if not self._lists_rooms:
            raise forbidden("This server does not show its published rooms to other servers")
        return await self._published.page(wanted)
