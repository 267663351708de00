"""Follows the stream of events and queues each for the application services it is for.

What has been looked at is a stored position, moved on in the transaction that queues: after a
crash the events in between are read from storage and looked at as they were, so that none is
missed and none queued twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Final

import orjson

from homeserver.appservices.interest import Interest
from homeserver.protocol.event_format import client_event
from homeserver.protocol.events import Event
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.rooms import Rooms
from homeserver.storage import appservices as storage
from homeserver.storage.append import Also
from homeserver.storage.appservices import Queued
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

#: Announcements that are kept for the follower; one that is further behind reads from storage.
_MAX_PENDING: Final = 10_000
#: Positions that are read at once: a thousand events, and fewer where other things happened.
_WINDOW: Final = 1_000 << 16


class Follower:
    """Queues events.  ``new_events`` is a listener of the notifier."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        interest: Interest,
        max_pending: int = _MAX_PENDING,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._interest = interest
        self._max_pending = max_pending
        self._pending: deque[NewEvents] = deque()
        #: Events were announced that are not among the pending ones.
        self._behind = True
        #: Everything up to here has been looked at.
        self.position = 0
        self._since: Mapping[str, int] = {}
        #: Services that something was recorded for, and the position it will be on disk at.
        self._recorded: list[tuple[str, int]] = []

    def start(self, since: Mapping[str, int]) -> None:
        """Begin after the position that is stored for each service; those that are not named get nothing."""
        self._since = since
        self.position = min(since.values())

    def new_events(self, news: NewEvents) -> None:
        """Remember to look at new events."""
        if len(self._pending) >= self._max_pending:
            self._pending.clear()
            self._behind = True
        if not self._behind:
            self._pending.append(news)

    async def follow(self, upto: int) -> set[str]:
        """Look at everything up to an announced position; the services that events were queued for."""
        told = {service_id for service_id, pos in self._recorded if pos <= upto}
        self._recorded = [each for each in self._recorded if each[1] > upto]
        if self._behind:
            self._behind = False
            try:
                told |= await self._catch_up(upto)
            except BaseException:
                self._behind = True
                raise
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), 500))]
            try:
                told |= await self._look_at(batch)
            except BaseException:
                self._behind = True
                raise
        # What is announced without events needs no looking at, and no storing.
        self.position = max(self.position, upto)
        return told

    def record(self, room: Room, event: Event, pos: int) -> Also | None:
        """What to store with a membership in a room this server is not in: it is in no timeline."""
        about = (event.state_key or "", event.sender)
        services = [each.id for each in self._interest.acting_for(about) if each.id in self._since]
        if not services:
            return None
        written = orjson.dumps(client_event(event))
        queued = [Queued(service_id, pos, 0, written) for service_id in services]
        self._recorded += [(service_id, pos) for service_id in services]
        return partial(storage.add, events=queued)

    async def _catch_up(self, upto: int) -> set[str]:
        told: set[str] = set()
        last = min(upto, await storage.newest_event_pos(self._db.scan))
        while self.position < last:
            window_end = min(self.position + _WINDOW, last)
            found = await storage.events_between(self._db.scan, self.position, window_end)
            queued: list[Queued] = []
            stored = await self._events.by_nids([nid for _, nid, _ in found])
            for _, nid, room_nid in found:
                queued += await self._queue_for(await self._rooms.by_nid(room_nid), stored[nid])
            told |= await self._store(queued, window_end)
        if upto > self.position:
            await self._store([], upto)
        return told

    async def _look_at(self, batch: list[NewEvents]) -> set[str]:
        queued: list[Queued] = []
        position = self.position
        for news in batch:
            if news.pos <= position:
                continue
            shown_here = {one.event.state_key for one in news.events if one.event.type == MEMBER}
            self._interest.forget_members(news.room.nid, news.users - shown_here)
            for stored in news.events:
                queued += await self._queue_for(news.room, stored)
            position = news.pos
        return await self._store(queued, position) if position > self.position else set()

    async def _queue_for(self, room: Room, stored: StoredEvent) -> list[Queued]:
        if not stored.shown or stored.pos is None:
            return []
        services = await self._interest.of_event(room, stored)
        return [
            Queued(service_id, stored.pos, stored.nid)
            for service_id in services
            if stored.pos > self._since.get(service_id, stored.pos)
        ]

    async def _store(self, queued: list[Queued], position: int) -> set[str]:
        await self._db.write(partial(storage.queue, events=queued, pos=position))
        self.position = position
        return {event.service_id for event in queued}
