"""What other servers ask about this one: aliases, profiles, the software it runs.

Specification: server-server API, "Querying for information", "Server Implementation".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from homeserver.errors import MatrixError, invalid_param, not_found
from homeserver.protocol.ids import is_room_alias, is_user_id, server_name_of
from homeserver.replies import Reply
from homeserver.rooms.rooms import Rooms
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.web import Request


class LocalProfiles(Protocol):
    """Knows the profiles of local users (``users/profiles.py``)."""

    async def local_profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        """The whole profile, or the object of one field; ``M_NOT_FOUND``."""
        ...


async def provides_none(_room_alias: str) -> bool:
    """For servers where nobody makes rooms when they are asked for."""
    return False


class Queries:
    """The endpoints that answer questions.

    ``provides_alias`` is asked for an alias that leads nowhere; it may lead somewhere then.
    """

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        profiles: LocalProfiles,
        server_name: str,
        version: Callable[[], str],
        provides_alias: Callable[[str], Awaitable[bool]] = provides_none,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._profiles = profiles
        self._server_name = server_name
        self._version = version
        self._provides_alias = provides_alias

    async def directory(self, request: Request) -> Reply:
        """``GET /query/directory``."""
        room_alias = request.query_text("room_alias")
        if not is_room_alias(room_alias) or server_name_of(room_alias) != self._server_name:
            raise invalid_param("'room_alias' is not an alias of this server")
        found = await room_storage.alias(self._db.read, room_alias)
        if found is None and await self._provides_alias(room_alias):
            found = await room_storage.alias(self._db.read, room_alias)
        if found is None:
            raise not_found("Room alias not found")
        room = await self._rooms.find(found[0])
        servers = set(room.servers) if room else set()
        # This server first: it is known to be there.
        return {"room_id": found[0], "servers": [self._server_name, *sorted(servers - {self._server_name})]}

    async def profile(self, request: Request) -> Reply:
        """``GET /query/profile``."""
        user_id = request.query_text("user_id")
        if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise invalid_param("'user_id' is not a user of this server")
        return await self._profiles.local_profile(user_id, request.query.get("field"))

    async def unknown(self, request: Request) -> Reply:
        """``GET /query/{queryType}``: 404 ``M_UNRECOGNIZED`` for a query that nobody has specified."""
        raise MatrixError(404, "M_UNRECOGNIZED", "There is no query of that type")

    async def version(self, request: Request) -> Reply:
        """``GET /version``."""
        return {"server": {"name": "Inglenook", "version": self._version()}}
