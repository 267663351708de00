"""Up to where people have read the rooms in view: the ``receipts`` extension.

Of a room that comes into view it tells the user's own receipts and those at events of the
timeline that is told with it, then changes.  Private receipts are their owner's alone.
Specification: MSC3960.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.rooms import Rooms
from homeserver.storage import receipts as storage
from homeserver.storage.database import Database
from homeserver.storage.receipts import Receipt
from homeserver.sync.receipts import one_receipt_event, only_shown
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sliding.extensions.scope import Due, rooms_due

#: Of what changed in one room, and at the events of its timeline: the newest.
_MAX_OF_ROOM = 1_000

_NAME = "receipts"


class ReceiptsExtension:
    """Tells receipts."""

    names = (_NAME,)

    def __init__(self, db: Database, rooms: Rooms, newest: NewestPositions) -> None:
        self._db = db
        self._rooms = rooms
        self._newest = newest

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        joined = reading.memberships.joined
        changed = await self._newest.changed(joined, reading.since.pos) if reading.since is not None else ()
        due = rooms_due(_NAME, asked, reading, changed, only=joined)
        by_room = await self._of_new_rooms(reading, due)
        for nid, after in due.after.items():
            if nid in joined:
                by_room[nid] += await storage.newest_changed(
                    self._db.read, nid, after, reading.now.pos, _MAX_OF_ROOM
                )
        told = {}
        for nid, receipts in by_room.items():
            shown = only_shown(receipts, reading.user_id, reading.ignored)
            if shown:
                told[(await self._rooms.by_nid(nid)).room_id] = one_receipt_event(shown)
        return ({"rooms": told}, True) if told else (None, False)

    async def _of_new_rooms(self, reading: SlidingReading, due: Due) -> defaultdict[int, list[Receipt]]:
        by_room: defaultdict[int, list[Receipt]] = defaultdict(list)
        if not due.whole:
            return by_room
        upto = reading.now.pos
        for nid, receipt in await storage.of_user_in(self._db.read, reading.user_id, list(due.whole), upto):
            by_room[nid].append(receipt)
        for nid in due.whole:
            start = reading.timelines.get(nid)
            if start is not None:
                by_room[nid] += await storage.at_events_after(self._db.scan, nid, start, upto, _MAX_OF_ROOM)
        return by_room
