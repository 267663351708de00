"""Rooms as somebody looks back at them: pages of the timeline, single events, state and members.

Everything is what the asking user may see: those in the room see it as it is, those who
left as it was then, everybody sees rooms whose history is open to the world.
Specification: client-server API, "Getting events for a room", "Room history visibility".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from homeserver.errors import forbidden, not_found
from homeserver.protocol.events import StateKey
from homeserver.protocol.visibility import WORLD_READABLE
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.partial import members_cited_by
from homeserver.rooms.retention import Retention
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage import timeline_pages
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.rooms import MEMBERSHIPS
from homeserver.storage.timeline_pages import TimelinePage, Told
from homeserver.turns import each_in_turns

#: Rows of one read, and how many are looked at for one page before it is cut off.
_BATCH = 50
_MAX_SCANNED = 1000

_FAR = 1 << 62

Accept: TypeAlias = Callable[[StoredEvent], bool]


class Backfill(Protocol):
    """Fetches history from other servers; ``rooms/backfill.py`` fulfils it."""

    async def fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        """Fetch up to ``limit`` events of the newest gap in ``[low, high]``; whether any came."""
        ...


class RoomView(msgspec.Struct, frozen=True, gc=False):
    """A room as somebody sees it."""

    room: Room
    user_id: str
    #: The position their view ends at; ``None`` for those who see the room as it is.
    upto: int | None
    joined: bool
    #: Who asks is told by which transactions this device of theirs sent what.
    device_id: str | None = None

    @property
    def state_ref(self) -> int:
        """The state they see, as a reference for ``StateStore``."""
        return self.room.state_ver if self.upto is None else min(self.upto, self.room.state_ver)


class Page(msgspec.Struct, frozen=True, gc=False):
    """A page of a timeline, in the order it was asked for."""

    events: list[SeenEvent]
    start: int
    #: Where the next page begins; ``None`` when there is none.
    end: int | None
    #: What is told of these events beside them; ``None`` where that was not read.
    told: Told | None = None


class Context(msgspec.Struct, frozen=True, gc=False):
    """An event and what is around it; ``before`` is newest first, ``after`` oldest first."""

    event: SeenEvent
    before: Page
    after: Page
    state: list[StoredEvent]


class History:
    """Looks back."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        keys: Keys,
        events: EventCache,
        states: StateStore,
        visibility: Visibility,
        backfill: Backfill,
        retention: Retention,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._keys = keys
        self._events = events
        self._states = states
        self._visibility = visibility
        self._backfill = backfill
        self._retention = retention

    async def view(self, user_id: str, room_id: str, device_id: str | None = None) -> RoomView:
        """How a user sees a room.  ``M_FORBIDDEN`` for those who never were in it, or have forgotten it."""
        room = await self._rooms.find(room_id)
        if room is None or not room.last_pos:
            raise forbidden("You are not in this room")
        if await self._is_surely_joined(room, user_id):
            return RoomView(room, user_id, None, True, device_id)
        membership = await room_storage.local_membership(self._db.read, user_id, room.nid)
        if membership is not None and membership.membership == "join":
            return RoomView(room, user_id, None, True, device_id)
        if room.history_visibility == WORLD_READABLE:
            return RoomView(room, user_id, None, False, device_id)
        left = await self._visibility.left_at(room, user_id)
        if membership is None or membership.forgotten or left is None:
            raise forbidden("You are not in this room")
        return RoomView(room, user_id, left, False, device_id)

    async def _is_surely_joined(self, room: Room, user_id: str) -> bool:
        """Whether the room as it is in memory says so, which then is what is on disk."""
        if room.unsettled or room.partial is not None:
            return False
        joined = membership_of(await self._states.member(room, user_id)) == "join"
        return joined and not room.unsettled

    async def backward(
        self, view: RoomView, start: int | None, to: int | None, limit: int, accept: Accept
    ) -> Page:
        """Events at or before ``start`` (the newest: ``None``) and after ``to``, newest first.

        Other servers are asked once for what is missing here.
        """
        room = view.room
        newest = room.last_pos if view.upto is None else view.upto
        start = newest if start is None else start
        cursor = min(start, newest)
        found: list[SeenEvent] = []
        told = Told(set(), {})
        scanned, may_ask = 0, True
        # Nearly always all of them are shown.
        batch = min(_BATCH, limit + 1)
        while scanned < _MAX_SCANNED:
            page = await timeline_pages.newest_upto(self._db.read, room.nid, cursor, batch, view.device_id)
            stored = await self._events.by_nids(page.nids)
            rows = [stored[nid] for nid in page.nids]
            if may_ask:
                may_ask = False
                if await self._filled(view, page, rows, cursor, limit - len(found)):
                    continue
            told.parents.update(page.told.parents)
            told.txn_ids.update(page.told.txn_ids)
            scanned += len(rows)
            wanted = [one for one in rows if to is None or _pos(one) > to]
            seen = await self._visible(view, wanted, accept)
            found += seen[: limit - len(found)]
            if len(found) == limit:
                return Page(found, start, _pos(found[-1].stored) - 1, told)
            if len(wanted) < len(rows):
                return Page(found, start, None, told)
            cursor = _pos(rows[-1]) - 1 if rows else cursor
            if len(rows) < batch:
                return Page(found, start, None, told)
            batch = _BATCH
        return Page(found, start, cursor, told)

    async def _filled(
        self, view: RoomView, page: TimelinePage, rows: Sequence[StoredEvent], high: int, wanted: int
    ) -> bool:
        """Whether history came in between what a page of ``wanted`` events is about to show.

        Only for somebody who may see the oldest of it: others learn nothing from it.  Nor is
        anything fetched from before a time whose messages are over.
        """
        shown = rows[:wanted]
        low = _pos(shown[-1]) if len(shown) == wanted else -_FAR
        if shown and (page.gap is None or page.gap < low):
            return False  # nothing is missing
        over = self._retention.expired_before(view.room)
        if shown and over is not None and shown[-1].event.origin_server_ts < over:
            return False
        if shown and not await self._visibility.may_see(view.room, view.user_id, shown[-1]):
            return False
        # An event right above what is shown may be the one that refers to the gap.
        return await self._backfill.fill(view.room, low, high + 1, max(wanted, _BATCH))

    async def forward(
        self, view: RoomView, start: int | None, to: int | None, limit: int, accept: Accept
    ) -> Page:
        """Events after ``start`` (the first one's place: ``None``) up to ``to``, oldest first."""
        room = view.room
        if start is None:
            start = min(await event_storage.oldest_pos(self._db.read, room.nid) - 1, 0)
        upto = min(_FAR if view.upto is None else view.upto, _FAR if to is None else to)
        cursor, scanned = start, 0
        found: list[SeenEvent] = []
        while scanned < _MAX_SCANNED:
            rows = await event_storage.timeline_forward(self._db.read, room.nid, cursor, upto, _BATCH)
            scanned += len(rows)
            found += (await self._visible(view, rows, accept))[: limit - len(found)]
            if len(found) == limit:
                return Page(found, start, _pos(found[-1].stored))
            if len(rows) < _BATCH:
                return Page(found, start, None)
            cursor = _pos(rows[-1])
        return Page(found, start, cursor)

    async def event(self, user_id: str, room_id: str, event_id: str) -> tuple[Room, SeenEvent]:
        """One event.  ``M_NOT_FOUND`` also for one the user may not see."""
        room = await self._rooms.find(room_id)
        stored = await self._events.by_id(event_id) if room is not None else None
        if room is None or stored is None or stored.room_nid != room.nid or stored.pos is None:
            raise not_found("There is no such event, or you may not see it")
        seen = await self._visibility.visible(room, user_id, [stored])
        if not seen:
            raise not_found("There is no such event, or you may not see it")
        return room, seen[0]

    async def context(self, view: RoomView, event_id: str, limit: int, accept: Accept) -> Context:
        """An event with about half of ``limit`` events on each side, and the state at the last of them."""
        _, one = await self.event(view.user_id, view.room.room_id, event_id)
        pos = _pos(one.stored)
        half = (limit + 1) // 2
        nothing = Page([], pos, None)
        before = await self.backward(view, pos - 1, None, half, accept) if half else nothing
        after = await self.forward(view, pos, None, limit - half, accept) if limit > half else nothing
        last = after.events[-1] if after.events else one
        state = list((await self._states.events_at(view.room, last.stored.state_after or 0)).values())
        around = [seen.stored for seen in (*before.events, one, *after.events)]
        return Context(one, before, after, [*state, *await self._cited(view.room, around, state)])

    async def whole(self, view: RoomView) -> RoomView:
        """The view, once all of the room's state is here: to be awaited before members are shown."""
        return msgspec.structs.replace(view, room=await self._rooms.whole(view.room))

    async def state(self, view: RoomView) -> list[StoredEvent]:
        """The whole state a user sees."""
        view = await self.whole(view)
        return list((await self._states.events_at(view.room, view.state_ref)).values())

    async def state_event(self, view: RoomView, key: StateKey) -> StoredEvent:
        """One piece of it; ``M_NOT_FOUND`` where there is none."""
        stored = await self._states.event_at(view.room, view.state_ref, key)
        if stored is None and key[0] == MEMBER:
            view = await self.whole(view)
            stored = await self._states.event_at(view.room, view.state_ref, key)
        if stored is None:
            raise not_found("The room has no such state")
        return stored

    async def members(
        self, view: RoomView, at: int | None, wanted: Callable[[str], bool]
    ) -> list[StoredEvent]:
        """Member events at a position (now: ``None``) whose membership is ``wanted``."""
        view = await self.whole(view)
        if at is None and view.upto is None:
            nids = [
                nid
                for membership in MEMBERSHIPS
                if wanted(membership)
                for _, nid in await room_storage.members(self._db.scan, view.room.nid, membership, _FAR)
            ]
        else:
            whole = await self._states.state_at(view.room, await self._ref_at(view, at))
            names = await self._keys.names(list(whole))
            nids = [nid for key, nid in whole.items() if names[key][0] == MEMBER]
            at_that_time = (await self._events.by_nids(nids)).values()
            memberships = await each_in_turns(membership_of, at_that_time)
            return [
                one for one, membership in zip(at_that_time, memberships, strict=True) if wanted(membership)
            ]
        return list((await self._events.by_nids(nids)).values())

    async def senders(self, view: RoomView, events: Sequence[SeenEvent]) -> list[StoredEvent]:
        """The member events of those who sent some events, as they were at the newest of them."""
        if not events:
            return []
        newest = max(events, key=lambda one: _pos(one.stored)).stored
        found = [
            await self._states.event_at(view.room, newest.state_after or 0, (MEMBER, sender))
            for sender in sorted({one.stored.event.sender for one in events})
        ]
        members = [stored for stored in found if stored is not None]
        return [*members, *await self._cited(view.room, [one.stored for one in events], members)]

    async def _cited(
        self, room: Room, events: Sequence[StoredEvent], known: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """Where members are missing, those of the senders of events that the events cite."""
        if room.partial is None:
            return []
        members = {stored.event.state_key for stored in known if stored.event.type == MEMBER}
        missing = {stored.event.sender for stored in events} - members
        return await members_cited_by(self._events, events, missing)

    async def _ref_at(self, view: RoomView, at: int | None) -> int:
        """The state at a position, also at those of history that other servers brought."""
        if at is None:
            return view.state_ref
        at = at if view.upto is None else min(at, view.upto)
        if at >= 0:
            return min(at, view.room.state_ver)
        rows = await event_storage.timeline_backward(self._db.read, view.room.nid, at, 1)
        return (rows[0].state_after or 0) if rows else 0

    async def _visible(self, view: RoomView, rows: Sequence[StoredEvent], accept: Accept) -> list[SeenEvent]:
        accepted = [stored for stored in rows if accept(stored)]
        since = await self._visibility.joined_since(view.room, view.user_id, _FAR) if view.joined else None
        return await self._visibility.visible(view.room, view.user_id, accepted, joined_since=since)


def _pos(stored: StoredEvent) -> int:
    return stored.pos or 0
