"""Purging what is over by the rooms' retention policies: a round now and then over all rooms.

Nothing has to be remembered from one round to the next: what is purged is not found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from homeserver.protocol.retention import RETENTION
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.purge import Purge
from homeserver.rooms.retention import Retention
from homeserver.rooms.rooms import Rooms
from homeserver.storage import purges
from homeserver.storage.database import Database
from homeserver.storage.keys import Keys
from homeserver.storage.purges import RoomPolicy
from homeserver.storage.rooms import StaleRoomError

_log = structlog.get_logger()

_ROOMS_AT_ONCE = 500


class Expiry:
    """Purges what is over."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        keys: Keys,
        events: EventCache,
        retention: Retention,
        purge: Purge,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._keys = keys
        self._events = events
        self._retention = retention
        self._purge = purge

    async def round(self) -> int:
        """Purge what is over by now in every room; how many events that were."""
        purged, last = 0, 0
        key_nid = await self._keys.find(RETENTION)
        while rooms := await purges.policies(self._db.scan, key_nid, last, _ROOMS_AT_ONCE):
            last = rooms[-1].room_nid
            events = await self._events.by_nids([room.event_nid for room in rooms if room.event_nid])
            for room in rooms:
                stored = events[room.event_nid] if room.event_nid else None
                purged += await self._room(room, stored.event.content if stored else None)
                await asyncio.sleep(0)
        return purged

    async def _room(self, policy: RoomPolicy, content: Mapping[str, Any] | None) -> int:
        before = self._retention.time_before(content)
        if before is None or not await self._has_more_than_tips(policy, before):
            return 0
        room = await self._rooms.by_nid(policy.room_nid)
        try:
            purged = await self._purge.older_than(room.room_id, before)
        except StaleRoomError:
            _log.warning("room not purged", room_id=room.room_id)
            return 0
        if purged:
            _log.info("events purged", room_id=room.room_id, events=purged)
        return purged

    async def _has_more_than_tips(self, policy: RoomPolicy, before: int) -> bool:
        """Whether a room need be looked at: of most, nothing is left to be purged."""
        found = await purges.older_than(self._db.scan, policy.room_nid, before, len(policy.tips) + 1)
        return not set(found) <= set(policy.tips)
