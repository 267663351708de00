"""What users keep for themselves and for rooms: the ``account_data`` extension.

Specification: MSC3959.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from homeserver.rooms.rooms import Rooms
from homeserver.storage import account_data as storage
from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.storage.database import Database
from homeserver.sync.account_data import account_data_events, global_events
from homeserver.sync.rulesets import Rulesets
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sliding.extensions.scope import Due, rooms_due

_NAME = "account_data"


class AccountDataExtension:
    """Tells everything once, then what changed."""

    names = (_NAME,)

    def __init__(self, db: Database, rooms: Rooms, push_rules: Rulesets) -> None:
        self._db = db
        self._rooms = rooms
        self._push_rules = push_rules

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        first = reading.since is None or _NAME not in reading.memory
        own = await self._own(reading, first)
        changed = await self._rooms_of(own)
        due = rooms_due(_NAME, asked, reading, changed.values())
        shown = await global_events(self._push_rules, reading.user_id, own, first=first)
        by_room = await self._by_room(reading, due)
        rooms = {room_id: account_data_events(data) for room_id, data in by_room.items()}
        if not shown and not rooms:
            return None, False
        return {"global": shown, "rooms": rooms}, True

    async def _own(self, reading: SlidingReading, first: bool) -> Sequence[AccountDatum]:
        """All that belongs to no room, or all that changed."""
        user_id, now = reading.user_id, reading.now.pos
        if first or reading.since is None:
            kept = await storage.of_rooms(self._db.read, user_id, [GLOBAL], now)
            return [datum for datum in kept if datum.is_there]
        return await storage.changed(self._db.read, user_id, reading.since.pos, now)

    async def _rooms_of(self, data: Collection[AccountDatum]) -> dict[str, int]:
        """The numbers of the rooms that data belongs to, by their ids."""
        found = {}
        for room_id in {datum.room_id for datum in data} - {GLOBAL}:
            room = await self._rooms.find(room_id)
            if room is not None:
                found[room_id] = room.nid
        return found

    async def _by_room(self, reading: SlidingReading, due: Due) -> Mapping[str, Sequence[AccountDatum]]:
        """What is to be told of each room there is something to tell of."""
        due_after = dict.fromkeys(due.whole, 0) | dict(due.after)
        if not due_after:
            return {}
        since = {(await self._rooms.by_nid(nid)).room_id: pos for nid, pos in due_after.items()}
        by_room: defaultdict[str, list[AccountDatum]] = defaultdict(list)
        for datum in await storage.of_rooms(self._db.scan, reading.user_id, list(since), reading.now.pos):
            after = since[datum.room_id]
            if datum.pos > after and (after or datum.is_there):
                by_room[datum.room_id].append(datum)
        return by_room
