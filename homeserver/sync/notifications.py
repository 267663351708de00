"""The list of events that people have been notified about.

Nothing is stored for it: it is read from the newest events of a user's rooms, in the order in
which they came here, through the rules the user has now.  A page looks at a bounded number of
events, so that it may hold less than was asked for and still not be the last one.
Specification: client-server API, "Listing Notifications".
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.errors import invalid_param
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import SeenEvent
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.sync.client_events import ClientEvents, Form
from homeserver.sync.memberships import Memberships
from homeserver.sync.notices import Notices, Notified, Reader
from homeserver.sync.notifier import Notifier
from homeserver.sync.unread import ReadUpTo, Unread

MAX_LIMIT = 100

#: Events that are looked at for one page, and how many of a room are read at once.
_MAX_LOOKED_AT = 2_000
_BATCH = 20

_TOKEN = "n"


class NotificationPage(msgspec.Struct, frozen=True, gc=False):
    """Notifications, newest first, and the token for those before them."""

    notifications: list[dict[str, Any]]
    next_token: str | None


class _View(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A room as somebody reads it."""

    room: Room
    reader: Reader
    read: ReadUpTo


class Notifications:
    """Lists what people have been notified about."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        memberships: Memberships,
        notices: Notices,
        unread: Unread,
        client_events: ClientEvents,
        notifier: Notifier,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._memberships = memberships
        self._notices = notices
        self._unread = unread
        self._client_events = client_events
        self._notifier = notifier

    async def page(
        self, user_id: str, device_id: str | None, *, before: int | None, limit: int, highlights: bool
    ) -> NotificationPage:
        """The newest notifications before a position, or only those that highlight."""
        now = self._notifier.position
        upto = now if before is None else min(now, before - 1)
        joined = (await self._memberships.at(user_id, now)).joined
        views: dict[int, _View] = {}
        found: list[dict[str, Any]] = []
        merged = _Merged(self._db, await room_storage.last_positions(self._db.scan, list(joined)), upto)
        looked_at, last = 0, upto
        while looked_at < _MAX_LOOKED_AT and len(found) < limit:
            stored = await merged.next()
            if stored is None:
                return NotificationPage(found, None)
            looked_at, last = looked_at + 1, stored.pos or 0
            view = views.get(stored.room_nid) or await self._view(stored.room_nid, user_id, now)
            views[stored.room_nid] = view
            if last <= view.reader.joined_since:
                merged.drop(stored.room_nid)
                continue
            for notified in await self._notices.among(view.room, view.reader, [stored]):
                if notified.notice.highlight or not highlights:
                    found.append(await self._written(view, device_id, notified))
        return NotificationPage(found, f"{_TOKEN}{last}")

    async def _view(self, room_nid: int, user_id: str, now: int) -> _View:
        room = await self._rooms.by_nid(room_nid)
        return _View(room, *await self._unread.reading(room, user_id, now))

    async def _written(self, view: _View, device_id: str | None, notified: Notified) -> dict[str, Any]:
        stored = notified.stored
        seen = [SeenEvent(stored, "join")]
        (event,) = await self._client_events.write(
            view.room, view.reader.user_id, device_id, seen, Form(room_id=False)
        )
        return {
            "actions": notified.notice.actions,
            "event": event,
            "read": view.read.is_read(stored.pos or 0, notified.thread),
            "room_id": view.room.room_id,
            "ts": stored.event.origin_server_ts,
        }


class _Merged:
    """The events of several rooms, newest first; of each room as many are read as are needed."""

    def __init__(self, db: Database, last_positions: dict[int, int], upto: int) -> None:
        self._db = db
        #: For each room the newest event that was read and not given out yet, or where to read on.
        self._heads: list[tuple[int, int]] = [
            (-min(last, upto), room_nid) for room_nid, last in last_positions.items() if last > 0
        ]
        heapq.heapify(self._heads)
        self._read: dict[int, Sequence[StoredEvent]] = {}
        self._dropped: set[int] = set()

    def drop(self, room_nid: int) -> None:
        """No earlier events of a room are wanted."""
        self._dropped.add(room_nid)

    async def next(self) -> StoredEvent | None:
        """The next event; ``None`` when there are no more."""
        while self._heads:
            negative, room_nid = heapq.heappop(self._heads)
            if room_nid in self._dropped or negative >= 0:
                continue
            read = self._read.pop(room_nid, ())
            if not read:
                read = await event_storage.timeline_backward(self._db.scan, room_nid, -negative, _BATCH)
                if not read:
                    continue
                if (read[0].pos or 0) < -negative:
                    # It was a guess: others may have newer ones.
                    self._push(room_nid, read)
                    continue
            self._push(room_nid, read[1:], below=read[0].pos or 0)
            return read[0]
        return None

    def _push(self, room_nid: int, read: Sequence[StoredEvent], below: int = 0) -> None:
        """Put a room back with what was read of it, or with the position to read on from."""
        if read:
            self._read[room_nid] = read
        heapq.heappush(self._heads, (-(read[0].pos or 0) if read else 1 - below, room_nid))


def parse_token(text: str | None) -> int | None:
    """The position a page ended at; ``M_INVALID_PARAM`` for what is no token."""
    if text is None:
        return None
    number = text.removeprefix(_TOKEN)
    if number == text or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise invalid_param("'from' is not a token of this endpoint")
    return int(number)
