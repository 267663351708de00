"""Looking into spaces, and at single rooms from outside (client-server API, "Spaces", "Room summaries")."""

from __future__ import annotations

from homeserver.errors import invalid_param
from homeserver.protocol.ids import is_room_id, is_server_name
from homeserver.replies import Reply
from homeserver.rooms.directory import Directory
from homeserver.rooms.hierarchy import DEFAULT_LIMIT, MAX_DEPTH, MAX_LIMIT, Hierarchy
from homeserver.web import Request


class SpacesApi:
    """Endpoints that describe rooms to those who may know of them."""

    def __init__(self, hierarchy: Hierarchy, directory: Directory) -> None:
        self._hierarchy = hierarchy
        self._directory = directory

    async def hierarchy(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/hierarchy``."""
        rooms, token = await self._hierarchy.page(
            request.requester.user_id,
            request.params["roomId"],
            limit=request.query_int("limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
            max_depth=request.query_int("max_depth", MAX_DEPTH, 0, MAX_DEPTH),
            suggested_only=request.query_bool("suggested_only"),
            token=request.query.get("from"),
        )
        return {"rooms": rooms} if token is None else {"rooms": rooms, "next_batch": token}

    async def summary(self, request: Request) -> Reply:
        """``GET /room_summary/{roomIdOrAlias}``."""
        room_id, servers = request.params["roomIdOrAlias"], request.query_all("via")
        requester = request.requester_if_any
        user_id = requester.user_id if requester else None
        if room_id.startswith("#"):
            room_id, known = await self._directory.resolve(room_id)
            servers = [*servers, *known]
        if not is_room_id(room_id) or not all(map(is_server_name, servers)):
            raise invalid_param("That is not a room, or not by way of a server")
        return await self._hierarchy.summary(user_id, room_id, servers)
