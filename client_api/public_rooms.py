"""The list of published rooms (client-server API, "Published room directory")."""

from __future__ import annotations

from homeserver.replies import Reply
from homeserver.rooms.published import PublishedRooms, Wanted
from homeserver.web import Request


class PublicRoomsApi:
    """Endpoints that show which rooms there are."""

    def __init__(self, published: PublishedRooms, server_name: str) -> None:
        self._published = published
        self._server_name = server_name

    async def list(self, request: Request) -> Reply:
        """``GET /publicRooms``."""
        limit = request.query_int("limit", 0) if "limit" in request.query else None
        return await self._page(request, Wanted(limit=limit, since=request.query.get("since")))

    async def search(self, request: Request) -> Reply:
        """``POST /publicRooms``."""
        return await self._page(request, request.decode(Wanted, empty_ok=True))

    async def _page(self, request: Request, wanted: Wanted) -> Reply:
        server = request.query.get("server") or self._server_name
        return await self._published.page_of(server, wanted)
