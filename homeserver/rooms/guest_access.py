"""Sending guests away from rooms that do not want guests any more.

Which of the users are guests each server knows of its own alone.  Specification: client-server
API, "Guest Access".
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.membership import Membership
from homeserver.rooms.room import GUEST_ACCESS
from homeserver.rooms.rooms import Rooms
from homeserver.storage import guests
from homeserver.storage.database import Database
from homeserver.storage.rooms import StaleRoomError
from homeserver.tasks import Background

_log = structlog.get_logger()


class GuestAccess:
    """Has the guests of this server leave; ``look`` listens to new events."""

    def __init__(self, db: Database, rooms: Rooms, membership: Membership, background: Background) -> None:
        self._db = db
        self._rooms = rooms
        self._membership = membership
        self._background = background

    def look(self, news: NewEvents) -> None:
        """Send the guests of a room away where new events say so."""
        room = news.room
        if not room.guests_may_join and any(stored.event.type == GUEST_ACCESS for stored in news.events):
            self._background.start(self._clear(room.nid), f"guests of {room.room_id}")

    async def enforce(self) -> None:
        """Send away every guest who is where no guest may be."""
        await self._send_away(await guests.joined(self._db.scan))

    async def _clear(self, room_nid: int) -> None:
        await self._send_away(await guests.joined_to(self._db.scan, room_nid))

    async def _send_away(self, stays: Iterable[tuple[str, int]]) -> None:
        for user_id, room_nid in stays:
            room = await self._rooms.by_nid(room_nid)
            if room.guests_may_join:
                continue
            try:
                await self._membership.leave(user_id, room.room_id)
            except (MatrixError, NotAllowed, StaleRoomError) as error:
                _log.warning("guest not sent away", user_id=user_id, room_id=room.room_id, reason=str(error))
