"""The rooms that application services publish for the networks they bridge.

They are listed beside this server's own (``rooms/published.py``).  Specification: application
service API, "Published room directories".
"""

from __future__ import annotations

from functools import partial

from homeserver.appservices.services import AppService
from homeserver.errors import invalid_param
from homeserver.rooms.rooms import Rooms
from homeserver.storage import appservices as storage
from homeserver.storage.database import Database

_MAX_NETWORK_ID_CHARS = 255


class NetworkRooms:
    """Changes which rooms are published for which network."""

    def __init__(self, db: Database, rooms: Rooms) -> None:
        self._db = db
        self._rooms = rooms

    async def publish(self, service: AppService, network_id: str, room_id: str, *, published: bool) -> None:
        """List a room for a network, or take it out; ``M_NOT_FOUND`` for an unknown room."""
        if not 0 < len(network_id) <= _MAX_NETWORK_ID_CHARS:
            raise invalid_param(f"A network's ID has 1 to {_MAX_NETWORK_ID_CHARS} characters")
        room = await self._rooms.get(room_id)
        await self._db.write(
            partial(
                storage.publish,
                service_id=service.id,
                network_id=network_id,
                room_nid=room.nid,
                published=published,
            )
        )
