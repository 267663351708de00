"""The children of an event, and the threads of a room, page by page.

Specification: client-server API, "Relationships API", "Querying threads in a room".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from homeserver.rooms.bundles import Bundles, is_thread_root
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History, RoomView
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.redactions import emptied
from homeserver.rooms.room import Room
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import relations
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.relations import Between, Wanted
from homeserver.storage.state import NO_EVENT

Include = Literal["all", "participated"]

#: Rows of one read, and how many are looked at for one page before it is cut off.
_BATCH = 50
_MAX_SCANNED = 1000

_FAR = 1 << 62


class Span(msgspec.Struct, frozen=True, gc=False):
    """Where a page of children is to begin and end, and how many it is to hold."""

    start: int | None
    to: int | None
    limit: int
    backwards: bool = True


class Found(msgspec.Struct, frozen=True, gc=False):
    """A page of events, in the order it was asked for."""

    events: list[SeenEvent]
    #: Where the next page begins; ``None`` when there is none.
    end: int | None


class Relations:
    """Finds children and threads."""

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        history: History,
        visibility: Visibility,
        ignored: IgnoredUsers,
        bundles: Bundles,
    ) -> None:
        self._db = db
        self._events = events
        self._history = history
        self._visibility = visibility
        self._ignored = ignored
        self._bundles = bundles

    async def children(
        self, user_id: str, room_id: str, parent_id: str, wanted: Wanted, span: Span
    ) -> tuple[Room, Found]:
        """A page of an event's children, most recent first or the other way round.

        ``M_NOT_FOUND`` for a parent that is not known, or that the user may not see.
        """
        room, parent = await self._history.event(user_id, room_id, parent_id)
        ignored = await self._ignored.by(user_id)
        low, high = _bounds(span)
        found: list[SeenEvent] = []
        for _ in range(_MAX_SCANNED // _BATCH):
            page = Between(low, high, _BATCH, span.backwards)
            nids = await relations.children(self._db.scan, room.nid, parent.stored.id, wanted, page)
            stored = await self._events.by_nids(nids)
            said = [stored[nid] for nid in nids if stored[nid].event.sender not in ignored]
            seen = await self._visibility.visible(room, user_id, said)
            left = span.limit - len(found)
            found += seen[:left]
            if len(seen) > left:
                return room, Found(found, _past(found[-1].stored, span))
            if len(nids) < _BATCH:
                return room, Found(found, None)
            cursor = _past(stored[nids[-1]], span)
            low, high = (low, cursor) if span.backwards else (cursor, high)
            if len(found) == span.limit:
                break
        return room, Found(found, cursor)

    async def threads(self, view: RoomView, include: Include, start: int | None, limit: int) -> Found:
        """The roots of a room's threads, those last spoken in first.

        A root that somebody ignored has sent is told of as if it were redacted.
        """
        ignored = await self._ignored.by(view.user_id)
        found: list[SeenEvent] = []
        cursor = _FAR if start is None else start
        for _ in range(_MAX_SCANNED // _BATCH):
            rows = await relations.threads(self._db.scan, view.room.nid, cursor, sorted(ignored), _BATCH)
            roots = await self._roots(view, [root_id for root_id, _ in rows], include)
            for root_id, pos in rows:
                if root_id not in roots:
                    continue
                if len(found) == limit:
                    return Found(found, cursor)
                found.append(_as_told(view.room, roots[root_id], ignored))
                cursor = pos - 1
            if len(rows) < _BATCH:
                return Found(found, None)
            cursor = rows[-1][1] - 1
        return Found(found, cursor)

    async def _roots(self, view: RoomView, root_ids: Sequence[str], include: Include) -> dict[str, SeenEvent]:
        """Those of the roots that are known, seen, and wanted."""
        stored = await self._events.by_ids(root_ids)
        proper = [
            one for one in stored.values() if one.room_nid == view.room.nid and is_thread_root(one.event)
        ]
        seen = await self._visibility.visible(view.room, view.user_id, proper)
        if include == "participated":
            bundles = await self._bundles.of(view.room, view.user_id, seen)
            threads = {nid: bundle.thread for nid, bundle in bundles.items()}
            seen = [
                one
                for one in seen
                if (thread := threads.get(one.stored.nid)) is not None and thread.participated
            ]
        return {one.stored.id: one for one in seen}


def _as_told(room: Room, root: SeenEvent, ignored: frozenset[str]) -> SeenEvent:
    if root.stored.event.sender not in ignored:
        return root
    return msgspec.structs.replace(root, stored=emptied(room, root.stored, NO_EVENT))


def _bounds(span: Span) -> tuple[int, int]:
    """The positions a page is in: after the first, up to the second."""
    low, high = (span.to, span.start) if span.backwards else (span.start, span.to)
    return -_FAR if low is None else low, _FAR if high is None else high


def _past(stored: StoredEvent, span: Span) -> int:
    """The place right behind an event, in the direction of a page."""
    return (stored.pos or 0) - 1 if span.backwards else (stored.pos or 0)
