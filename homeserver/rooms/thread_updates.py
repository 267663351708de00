"""Threads that were spoken in, in all rooms of a user: which, and whether more than once.

A thread is found at its newest event, once.  Specification: MSC4360.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from homeserver.rooms.bundles import is_thread_root
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import threads as storage
from homeserver.storage.database import Database
from homeserver.storage.relations import Between
from homeserver.storage.threads import LastWord

#: Threads told at once.
MAX_UPDATES = 100
#: What is looked at for one page: threads have several senders, and may be told already.
_MAX_LOOKED_AT = 500


class ThreadUpdate(msgspec.Struct, frozen=True, gc=False):
    """A thread in which something was said."""

    root: SeenEvent
    latest_pos: int
    #: More was said than the newest.
    has_earlier: bool


class ThreadUpdates(msgspec.Struct, frozen=True, gc=False):
    """The threads of some rooms, those spoken in last first within each room."""

    by_room: Sequence[tuple[Room, Sequence[ThreadUpdate]]]
    #: Others are at or before this position; ``None`` where there are none.
    end: int | None


class UpdatedThreads:
    """Finds threads in which something was said."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        visibility: Visibility,
        ignored: IgnoredUsers,
        newest: NewestPositions,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._visibility = visibility
        self._ignored = ignored
        self._newest = newest

    async def between(
        self, user_id: str, joined: frozenset[int], after: int, upto: int, limit: int
    ) -> ThreadUpdates:
        """Threads of joined rooms whose newest event (but for ignored people's) is in ``(after, upto]``.

        Of many those spoken in last; of these only the ones whose root the user sees.
        """
        nids = list(await self._newest.changed(joined, after) if after > 0 else joined)
        if not nids or upto <= after:
            return ThreadUpdates([], None)
        ignored = await self._ignored.by(user_id)
        page = Between(after, upto, _MAX_LOOKED_AT)
        rows = await storage.last_words(self._db.scan, nids, page)
        threads, end = newest_of_each(rows, ignored, limit)
        if end is None and len(rows) == _MAX_LOOKED_AT:
            end = rows[-1].pos - 1
        by_room: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for thread in threads:
            by_room[thread.room_nid][thread.root_id] = thread.pos
        found = []
        for nid, roots in by_room.items():
            room = await self._rooms.by_nid(nid)
            updates = await self._in_room(user_id, room, roots, page, ignored)
            if updates:
                found.append((room, updates))
        return ThreadUpdates(found, end)

    async def spoken_between(
        self, room: Room, updates: Sequence[ThreadUpdate], after: int, upto: int
    ) -> list[ThreadUpdate]:
        """Those of a room's threads in which something was said in ``(after, upto]``."""
        if upto <= after:
            return []
        root_ids = [update.root.stored.id for update in updates]
        found = await storage.spoken_between(self._db.read, room.nid, root_ids, after, upto)
        return [update for update in updates if update.root.stored.id in found]

    async def _in_room(
        self, user_id: str, room: Room, roots: Mapping[str, int], page: Between, ignored: Collection[str]
    ) -> list[ThreadUpdate]:
        root_ids = list(roots)
        later = await storage.spoken_in_after(self._db.read, room.nid, root_ids, page.high)
        told = {root_id for root_id, sender in later if sender not in ignored}
        stored = await self._events.by_ids([root_id for root_id in root_ids if root_id not in told])
        proper = [one for one in stored.values() if one.room_nid == room.nid and is_thread_root(one.event)]
        seen = await self._visibility.visible(room, user_id, proper)
        shown = {one.stored.id: one for one in seen}
        if not shown:
            return []
        earlier = await storage.with_earlier(self._db.read, room.nid, list(shown), page)
        return [
            ThreadUpdate(shown[root_id], pos, root_id in earlier)
            for root_id, pos in roots.items()
            if root_id in shown
        ]


def newest_of_each(
    rows: Sequence[LastWord], ignored: Collection[str], limit: int
) -> tuple[list[LastWord], int | None]:
    """The newest event of each thread, up to ``limit`` threads, and where those begin that are left over.

    ``rows`` are the newest first.
    """
    found: dict[tuple[int, str], LastWord] = {}
    for row in rows:
        thread = (row.room_nid, row.root_id)
        if row.sender in ignored or thread in found:
            continue
        if len(found) == limit:
            return list(found.values()), row.pos
        found[thread] = row
    return list(found.values()), None
