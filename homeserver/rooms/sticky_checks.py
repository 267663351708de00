"""Soft-failed events that stick are judged anew when the state of their room changes (MSC4354).

So servers come to agree on which events stick, whatever order the room's changes reached them in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.sticky import sticky_ms
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Send
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.storage import sticky_events as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.sticky_events import Sticky
from homeserver.tasks import Background


class StickyChecks:
    """Lets soft-failed events stick once they are allowed; ``announce(pos, room_nid)`` wakes readers."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        send: Send,
        sticky: StickyEvents,
        positions: NumberSequence,
        announce: Callable[[int, int], None],
        background: Background,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._send = send
        self._sticky = sticky
        self._positions = positions
        self._announce = announce
        self._background = background
        #: The version of a room's state that its pending events were judged by last.
        self._judged_by: dict[int, int] = {}
        #: Rooms for which that is about to happen.
        self._waiting: set[int] = set()

    def new_events(self, news: NewEvents) -> None:
        """Judge a room's pending events anew where its state is another one."""
        room = news.room
        if not self._sticky.pending(room.nid):
            self._judged_by.pop(room.nid, None)
        elif room.nid not in self._waiting and self._judged_by.get(room.nid) != room.state_ver:
            self._waiting.add(room.nid)
            self._background.start(self.judge_again(room), "soft-failed sticky events")

    async def judge_again(self, room: Room) -> None:
        """Let those stick that the room's state allows now."""
        async with self._rooms.lock(room.room_id) as locked:
            self._waiting.discard(room.nid)
            self._judged_by[locked.nid] = locked.state_ver
            pending = self._sticky.pending(locked.nid)
            events = await self._events.by_nids([one.event_nid for one in pending])
            allowed = [one for one in pending if await self._is_allowed(locked, events.get(one.event_nid))]
            written = self._let_stick(allowed)
        if written is not None:
            await written

    async def came_again(self, stored: StoredEvent) -> None:
        """An event was sent as one that sticks that is here already: as history, which sticks to nobody."""
        if sticky_ms(stored.event) is None or stored.hidden or self._sticky.is_known(stored):
            return
        sticky = self._sticky.judge(stored)
        written = self._let_stick([sticky]) if sticky is not None else None
        if written is not None:
            await written

    def _let_stick(self, sticky: Sequence[Sticky]) -> asyncio.Future[None] | None:
        """From a new position on each; nothing is awaited between taking it and the write."""
        if not sticky:
            return None
        placed = [msgspec.structs.replace(one, pos=self._positions.next()) for one in sticky]
        written = self._db.write(partial(storage.put, sticky=placed))
        # In the order of the writes, so that nobody reads beyond these positions without them.
        written.add_done_callback(partial(self._stuck, placed))
        return written

    def _stuck(self, placed: Sequence[Sticky], written: asyncio.Future[None]) -> None:
        if written.cancelled() or written.exception() is not None:
            return
        self._sticky.note(placed)
        for one in placed:
            self._announce(one.pos or 0, one.room_nid)

    async def _is_allowed(self, room: Room, stored: StoredEvent | None) -> bool:
        if stored is None:
            return False
        try:
            await self._send.check_current(room, stored.event)
        except NotAllowed:
            return False
        return True
