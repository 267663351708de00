"""Finding the event closest to a time.

An answer from what is stored holds unless history is missing right there, between the
stored events on both sides of the time: then other servers are asked, and what they name is
fetched into its gap, so that it can be read on from.  Specification: client-server API,
``GET /rooms/{roomId}/timestamp_to_event``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from homeserver.errors import MatrixError, not_found
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History, RoomView
from homeserver.rooms.room import Room
from homeserver.rooms.visibility import Visibility, only_events
from homeserver.storage import moments
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.moments import Direction

#: How many events are looked at for one that may be seen, and how many at once.
_MAX_SCANNED = 1_000
_BATCH = 50

_FAR = 1 << 62

#: Those of some events that somebody may see, in the order they came.
MaySee = Callable[[Sequence[StoredEvent]], Awaitable[Sequence[StoredEvent]]]


class RemoteHistory(Protocol):
    """Other servers' history; ``rooms/backfill.py`` fulfils it."""

    async def bring(
        self, room: Room, ts: int, direction: Direction, low: int, high: int
    ) -> StoredEvent | None:
        """The event closest to a time that another server knows, put into a gap in ``[low, high]``.

        ``None`` where there is no gap, or no server that could help.
        """
        ...


class Moments:
    """Finds events by time."""

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        history: History,
        visibility: Visibility,
        remote: RemoteHistory,
    ) -> None:
        self._db = db
        self._events = events
        self._history = history
        self._visibility = visibility
        self._remote = remote

    async def closest_for_user(
        self, user_id: str, room_id: str, ts: int, direction: Direction
    ) -> StoredEvent:
        """The event closest to ``ts`` (milliseconds) that a local user may see.

        ``M_FORBIDDEN`` for a room they may not look into, ``M_NOT_FOUND``.
        """
        view = await self._history.view(user_id, room_id)

        async def may_see(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
            return await self._seen(view, events)

        found = await self.closest_here(view.room, ts, direction, may_see)
        brought = await self._brought(view, ts, direction)
        if brought is not None and _is_closer(brought, found, ts, direction):
            found = brought
        if found is None:
            raise not_found("There is no event in that direction")
        return found

    async def closest_here(
        self, room: Room, ts: int, direction: Direction, may_see: MaySee, *, most: int = _MAX_SCANNED
    ) -> StoredEvent | None:
        """The event closest to ``ts`` among those stored here and seen; ``most`` are looked at."""
        beyond = (ts, -_FAR if direction == "f" else _FAR)
        for _ in range(most // _BATCH):
            rows = await moments.closest(self._db.scan, room.nid, direction, beyond, _BATCH)
            stored = await self._events.by_nids([event_nid for _, _, event_nid in rows])
            seen = await may_see([stored[event_nid] for _, _, event_nid in rows])
            if seen:
                return seen[0]
            if len(rows) < _BATCH:
                return None
            beyond = rows[-1][:2]
        return None

    async def _brought(self, view: RoomView, ts: int, direction: Direction) -> StoredEvent | None:
        """What other servers know of the gap at a time, if there is one."""
        room = view.room
        before = await moments.closest(self._db.scan, room.nid, "b", (ts, _FAR), 1)
        after = await moments.closest(self._db.scan, room.nid, "f", (ts, -_FAR), 1)
        low = before[0][1] + 1 if before else -_FAR
        high = after[0][1] if after else _FAR
        if low > high:  # the times of its events say nothing about where in the room they are
            low, high = high, low
        brought = await self._remote.bring(room, ts, direction, low, high)
        return brought if brought is not None and await self._seen(view, [brought]) else None

    async def _seen(self, view: RoomView, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        shown = [stored for stored in events if view.upto is None or (stored.pos or 0) <= view.upto]
        return only_events(await self._visibility.visible(view.room, view.user_id, shown))


def parse_direction(text: str) -> Direction:
    """``f`` or ``b``; ``M_INVALID_PARAM`` for anything else."""
    match text:
        case "f":
            return "f"
        case "b":
            return "b"
        case _:
            raise MatrixError(400, "M_INVALID_PARAM", "'dir' is neither 'f' nor 'b'")


def _is_closer(candidate: StoredEvent, than: StoredEvent | None, ts: int, direction: Direction) -> bool:
    time = candidate.event.origin_server_ts
    if direction == "f":
        return time >= ts and (than is None or time < than.event.origin_server_ts)
    return time <= ts and (than is None or time > than.event.origin_server_ts)
