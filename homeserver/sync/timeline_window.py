"""The newest events of a room that somebody may see, between two positions."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from homeserver.rooms.room import Room
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import SENT_HERE, StoredEvent

#: Rows of one read, and how many events are looked at for one window before it is cut off.
_BATCH = 50
_MAX_SCANNED = 500
#: How many are looked at at once in memory, where fewer are wanted.
_FEWEST = 5


class Window(msgspec.Struct, frozen=True, gc=False):
    """A piece of a timeline."""

    #: Oldest first.
    events: list[SeenEvent]
    #: Whether there is more that was left out between the window and where it was to begin.
    limited: bool
    #: The position just before the window: where scrolling back goes on.
    start: int
    #: Whether the room's first event is in what was looked at.
    from_the_beginning: bool


class TimelineWindows:
    """Reads windows of timelines: from memory where the room has all of it there."""

    def __init__(self, db: Database, visibility: Visibility) -> None:
        self._db = db
        self._visibility = visibility

    async def read(
        self,
        room: Room,
        user_id: str,
        *,
        after: int,
        upto: int,
        limit: int,
        accept: Callable[[StoredEvent], bool],
        joined_since: int | None,
    ) -> Window:
        """At most ``limit`` of the events in ``(after, upto]`` that the user may see and ``accept`` takes.

        ``after`` is not negative.  A window never reaches over a gap: scrolling back from its
        start has the events fetched that are missing here.  ``joined_since`` as in
        ``Visibility.visible``.
        """
        newest_first: list[SeenEvent] = []
        limited = from_the_beginning = exhausted = False
        cursor, scanned = upto, 0
        while not (limited or exhausted):
            batch, exhausted = await self._batch(
                room, after, cursor, max(limit + 1 - len(newest_first), _FEWEST)
            )
            scanned += len(batch)
            accepted = [stored for stored in batch if accept(stored)]
            seen = await self._visibility.visible(room, user_id, accepted, joined_since=joined_since)
            limited = len(newest_first) + len(seen) > limit
            newest_first += seen[: limit - len(newest_first)]
            if batch:
                from_the_beginning = from_the_beginning or batch[-1].event.type == "m.room.create"
                cursor = (batch[-1].pos or 0) - 1
            if scanned >= _MAX_SCANNED and not exhausted:
                limited = True
        gap = await self._gap(room, newest_first, upto)
        if gap is not None:
            newest_first = [one for one in newest_first if (one.stored.pos or 0) >= gap]
            return Window(newest_first[::-1], True, gap - 1, False)
        start = (newest_first[-1].stored.pos or 0) - 1 if newest_first else upto
        return Window(newest_first[::-1], limited, start, from_the_beginning)

    async def _gap(self, room: Room, newest_first: list[SeenEvent], upto: int) -> int | None:
        """The position of the newest event in a window that builds on events which are not here."""
        if all(one.stored.flags & SENT_HERE for one in newest_first):
            return None
        oldest = newest_first[-1].stored.pos or 0
        found = await event_storage.newest_gap(self._db.read, room.nid, oldest, upto)
        return found[0] if found else None

    async def _batch(
        self, room: Room, after: int, cursor: int, wanted: int
    ) -> tuple[list[StoredEvent], bool]:
        """Events in ``(after, cursor]``, newest first, and whether these are all.

        From memory no more than are wanted.
        """
        if after >= room.recent_after or cursor > room.recent_after:
            recent = room.recent_between(after, cursor, wanted)
            if after >= room.recent_after:
                return recent, len(recent) < wanted
            if recent:
                return recent, False
        rows = await event_storage.timeline_backward(self._db.read, room.nid, cursor, _BATCH)
        found = [stored for stored in rows if (stored.pos or 0) > after]
        return found, len(found) < _BATCH
