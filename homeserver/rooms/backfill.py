"""Getting history from other servers when somebody scrolls back past what is stored.

Backfilled events get negative positions, before everything the room has, and the
state before them as their server knows it, so that history visibility holds for them too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from homeserver.errors import RemoteError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import Event
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.missing import Missing
from homeserver.rooms.outliers import MissingAuthEvents, authorise_by_auth_events
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.timeline import Timeline
from homeserver.storage import events as event_storage
from homeserver.storage.append import Append
from homeserver.storage.database import Database
from homeserver.storage.events import REJECTED, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence

_log = structlog.get_logger()

#: How many servers are asked for one page of history.
_MAX_SERVERS = 3
MAX_EVENTS = 100


class Backfill:
    """Fetches earlier events of a room and puts them before what is stored."""

    def __init__(
        self,
        *,
        db: Database,
        keys: Keys,
        rooms: Rooms,
        events: EventCache,
        states: StateStore,
        timeline: Timeline,
        inbound: Inbound,
        missing: Missing,
        remote: RemoteRooms,
        event_nids: NumberSequence,
        server_name: str,
    ) -> None:
        self._db = db
        self._keys = keys
        self._rooms = rooms
        self._events = events
        self._states = states
        self._timeline = timeline
        self._inbound = inbound
        self._missing = missing
        self._remote = remote
        self._event_nids = event_nids
        self._server_name = server_name
        #: One backfill of a room at a time; taken before the room lock.
        self._filling: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def before(self, room: Room, pos: int, limit: int) -> bool:
        """Fetch up to ``limit`` events that come before ``pos``; whether any came."""
        async with self._filling[room.nid]:
            wanted = await event_storage.missing_before(self._db.read, room.nid, pos, 10)
            if not wanted:
                return False
            for server in self._servers(room):
                try:
                    pdus = await self._remote.backfill(server, room.room_id, wanted, min(limit, MAX_EVENTS))
                    if await self._take(server, room, pdus[:MAX_EVENTS]):
                        return True
                except (RemoteError, Dropped) as error:
                    _log.info("backfill failed", room_id=room.room_id, server=server, reason=str(error))
            return False

    def _servers(self, room: Room) -> list[str]:
        """Servers that are likely to have the history: those with the most members first."""
        others = [server for server in room.servers if server != self._server_name]
        return sorted(others, key=lambda server: -room.servers[server])[:_MAX_SERVERS]

    async def _take(self, server: str, room: Room, pdus: Sequence[dict[str, Any]]) -> bool:
        checked = await self._inbound.checked(room.rules, pdus)
        events = {
            event.event_id: event
            for event in checked
            if isinstance(event, Event) and event.room_id == room.room_id
        }
        known = await self._events.by_ids(list(events))
        fresh = [
            event
            for event in sorted(events.values(), key=lambda event: event.depth)
            if event.event_id not in known or known[event.event_id].state_before is None
        ]
        if not fresh:
            return False
        await self._inbound.fetch_auth_events(server, room, fresh)
        state = await self._missing.state_before(server, room, fresh[0], self._inbound.store_outliers)
        async with self._rooms.lock(room.room_id) as locked:
            written = await self._prepend(locked, fresh, state)
        await written
        return True

    async def _prepend(
        self, room: Room, events: Sequence[Event], state: Sequence[StoredEvent]
    ) -> asyncio.Future[list[StoredEvent]]:
        """Put events, oldest first, before all that is stored.  Caller holds the room lock."""
        await room.settle()
        batch = Append(room=room.row(), expected_last_pos=room.last_pos)
        ref = await self._reference(room, state, batch)
        pos = await event_storage.oldest_pos(self._db.read, room.nid) - len(events)
        here = {event.event_id for event in events}
        known = await self._events.by_ids(
            [name for event in events for name in (event.event_id, *event.auth_events, *event.prev_events)]
        )
        for event in events:
            outlier = known.get(event.event_id)
            stored = await self._placed(room, event, known, outlier, ref)
            if stored is None:
                continue
            if not stored.rejected:
                stored = msgspec.structs.replace(stored, pos=pos)
                pos += 1
            if stored.key_nid is not None and not stored.rejected:
                overlay = await self._states.overlay_on(room, ref, {stored.key_nid: stored.nid})
                batch.overlays.append(overlay)
                ref = -overlay.nid
                stored = msgspec.structs.replace(stored, state_after=ref)
            known[event.event_id] = stored
            (batch.placed if outlier else batch.new).append(stored)
            batch.arrived.append(event.event_id)
            batch.missing.extend(
                (prev, stored.pos or 0)
                for prev in event.prev_events
                if prev not in here and (prev not in known or known[prev].state_before is None)
            )
        return self._timeline.write(room, batch, [])

    async def _reference(self, room: Room, state: Sequence[StoredEvent], batch: Append) -> int:
        whole = {stored.key_nid: stored.nid for stored in state if stored.key_nid is not None}
        current = await self._states.state_at(room, room.state_ver)
        difference = {
            key: whole.get(key, 0)
            for key in whole.keys() | current.keys()
            if whole.get(key, 0) != current.get(key, 0)
        }
        if not difference:
            return room.state_ver
        overlay = await self._states.overlay_on(room, room.state_ver, difference)
        batch.overlays.append(overlay)
        return -overlay.nid

    async def _placed(
        self,
        room: Room,
        event: Event,
        known: dict[str, StoredEvent],
        outlier: StoredEvent | None,
        ref: int,
    ) -> StoredEvent | None:
        """The event as it will be stored, still without position; ``None``: it cannot be judged."""
        flags = 0
        try:
            auth = {name: known[name].event for name in event.auth_events if name in known}
            create = room.create.event if room.rules.hash_room_ids else None
            authorise_by_auth_events(room.rules, event, auth, create)
        except MissingAuthEvents:
            return None
        except NotAllowed:
            flags = REJECTED
            event = msgspec.structs.replace(event, rejected=True)
        return StoredEvent(
            nid=outlier.nid if outlier else self._event_nids.next(),
            room_nid=room.nid,
            event=event,
            pos=None,
            flags=flags,
            state_before=ref,
            state_after=ref,
            auth_nids=tuple(known[name].nid for name in event.auth_events),
            key_nid=await self._keys.intern(event.key) if event.state_key is not None else None,
        )
