"""Getting history from other servers when somebody scrolls back past what is stored.

Backfilled events get positions in the gap they fill, below the event that refers to
them, and the state before them as their server knows it, so that history visibility
holds for them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import structlog

from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import Event
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.missing import ClaimedState, Missing
from homeserver.rooms.outliers import MissingAuthEvents, authorise_by_auth_events
from homeserver.rooms.redactions import Redactions, emptied
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.timeline import Timeline
from homeserver.storage import events as event_storage
from homeserver.storage.append import Append, Redacted
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, REJECTED, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.moments import Direction
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.tasks import Background

_log = structlog.get_logger()

#: How many servers are asked for one page of history.
_MAX_SERVERS = 3
MAX_EVENTS = 100
#: How long somebody who scrolls back waits for other servers; what comes later is there the next time.
PATIENCE_SECONDS = 20.0
#: How many events come with one that was found by its time, and how many positions are left after them
#: where nothing says how many events are missing there.
_BROUGHT = 10
_ROOM_AFTER = 1 << 20


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
        background: Background,
        server_name: str,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._db = db
        self._keys = keys
        self._rooms = rooms
        self._events = events
        self._states = states
        self._timeline = timeline
        self._redactions = Redactions(db, events)
        self._inbound = inbound
        self._missing = missing
        self._remote = remote
        self._event_nids = event_nids
        self._background = background
        self._server_name = server_name
        self._patience = patience
        #: One backfill of a room at a time; taken before the room lock.
        self._filling: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        """Fetch up to ``limit`` events of the newest gap that ends at a position in ``[low, high]``.

        Whether any came; false where there is no gap, and where other servers take too long:
        then it goes on without anybody waiting for it.
        """
        if await event_storage.newest_gap(self._db.read, room.nid, low, high) is None:
            return False
        filling = self._background.start(self._fill(room, low, high, limit), f"history of {room.room_id}")
        done, _ = await asyncio.wait([filling], timeout=self._patience)
        return bool(done) and filling.result()

    async def _fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        # What history means for the room's state is not known before that is whole.
        try:
            room = await self._rooms.whole(room)
        except MatrixError:
            return False
        async with self._filling.setdefault(room.nid, asyncio.Lock()):
            gap = await event_storage.newest_gap(self._db.read, room.nid, low, high)
            if gap is None:
                return True  # somebody else's request has just filled it
            pos, wanted = gap
            for server in self._servers(room):
                try:
                    pdus = await self._remote.backfill(server, room.room_id, wanted, min(limit, MAX_EVENTS))
                    if await self._take(server, room, pos, wanted, pdus[:MAX_EVENTS]):
                        return True
                except (RemoteError, Dropped) as error:
                    _log.info("backfill failed", room_id=room.room_id, server=server, reason=str(error))
            return False

    async def bring(
        self, room: Room, ts: int, direction: Direction, low: int, high: int
    ) -> StoredEvent | None:
        """The event closest to a time that another server knows, put into the newest gap in ``[low, high]``.

        It is put there with some of what comes before it, and room is left for what comes
        after.  ``None`` where there is no gap, or no server that could help.
        """
        try:
            room = await self._rooms.whole(room, self._patience)
        except MatrixError:
            return None
        if await event_storage.newest_gap(self._db.read, room.nid, low, high) is None:
            return None
        async with self._filling.setdefault(room.nid, asyncio.Lock()):
            for server in self._servers(room):
                try:
                    event_id, _ = await self._remote.timestamp_to_event(server, room.room_id, ts, direction)
                    stored = await self._events.by_id(event_id)
                    if stored is None or stored.state_before is None:
                        await self._bring_from(server, room, event_id, low, high)
                        stored = await self._events.by_id(event_id)
                except (RemoteError, Dropped) as error:
                    _log.info("no event by time", room_id=room.room_id, server=server, reason=str(error))
                    continue
                if stored is not None and stored.room_nid == room.nid and stored.pos is not None:
                    return stored
            return None

    async def _bring_from(self, server: str, room: Room, event_id: str, low: int, high: int) -> None:
        """Put an event into the newest gap in ``[low, high]``; the caller fills the room's gaps alone."""
        gap = await event_storage.newest_gap(self._db.read, room.nid, low, high)
        if gap is None:
            return
        pos = gap[0]
        floor = await event_storage.pos_before(self._db.read, room.nid, pos)
        middle = pos - _ROOM_AFTER if floor is None else pos - (pos - floor) // 2
        pdus = await self._remote.backfill(server, room.room_id, [event_id], _BROUGHT)
        await self._take(server, room, middle, [event_id], pdus[:_BROUGHT])

    def _servers(self, room: Room) -> list[str]:
        """Servers that are likely to have the history: those with the most members first."""
        others = [server for server in room.servers if server != self._server_name]
        return sorted(others, key=lambda server: -room.servers[server])[:_MAX_SERVERS]

    async def _take(
        self, server: str, room: Room, pos: int, wanted: Sequence[str], pdus: Sequence[dict[str, Any]]
    ) -> bool:
        checked = await self._inbound.checked(room.rules, pdus)
        of_room = {
            event.event_id: event
            for event in checked
            if isinstance(event, Event) and event.room_id == room.room_id
        }
        events = reached(wanted, of_room)
        known = await self._events.by_ids(list(events))
        placed = [known[event_id] for event_id in known if known[event_id].state_before is not None]
        # What is in the timeline, and what comes before that: it belongs into the gaps below.
        elsewhere = reached([stored.id for stored in placed], events)
        fresh = [
            event
            for event in sorted(events.values(), key=lambda event: event.depth)
            if event.event_id not in elsewhere
        ]
        if not fresh:
            return False
        await self._inbound.fetch_auth_events(server, room, fresh)
        state = ClaimedState((), whole=True)
        if fresh[0].prev_events:  # before the create event there is no state
            state = await self._missing.state_before(server, room, fresh[0], self._inbound.store_claimed)
        async with self._rooms.lock(room.room_id) as locked:
            batch = await self._put_before(locked, pos, fresh, state)
            locked.forget_before(pos)
            written = self._timeline.write(locked, batch, [])
        await written
        return bool(batch.new or batch.placed)

    async def _put_before(self, room: Room, gap: int, events: Sequence[Event], state: ClaimedState) -> Append:
        """The batch that puts events, oldest first, right before position ``gap``.

        Caller holds the room lock.
        """
        await room.settle()
        room.check_sound()
        batch = Append(expected_last_pos=room.last_pos)
        ref = await self._reference(room, state, batch)
        floor = await event_storage.pos_before(self._db.read, room.nid, gap)
        if floor is not None:
            events = events[-(gap - floor - 1) :] if gap - floor > 1 else []
        pos = gap - len(events)
        here = {event.event_id for event in events}
        known = await self._events.by_ids(
            [name for event in events for name in (event.event_id, *event.auth_events, *event.prev_events)]
        )
        for event in events:
            outlier = known.get(event.event_id)
            if outlier is not None and outlier.state_before is not None:
                continue  # it came by itself meanwhile
            before = _state_after_all(event, known)
            before = ref if before is None else before
            stored = await self._placed(room, event, known, outlier, before)
            if stored is None:
                continue
            if not stored.rejected:
                stored = msgspec.structs.replace(stored, pos=pos)
                pos += 1
            if stored.key_nid is not None and not stored.rejected:
                overlay = await self._states.overlay_on(room, before, {stored.key_nid: stored.nid})
                batch.overlays.append(overlay)
                ref = -overlay.nid
                stored = msgspec.structs.replace(stored, state_after=ref)
            stored = await self._redacted(room, batch, stored, known)
            known[event.event_id] = stored
            (batch.placed if outlier else batch.new).append(stored)
            batch.arrived.append(event.event_id)
            batch.missing.extend(
                (prev, stored.pos or 0)
                for prev in event.prev_events
                if prev not in here and (prev not in known or known[prev].state_before is None)
            )
        return batch

    async def _redacted(
        self, room: Room, batch: Append, stored: StoredEvent, known: dict[str, StoredEvent]
    ) -> StoredEvent:
        """The event as redactions leave it; what it redacts itself is emptied in the batch and ``known``."""
        if stored.rejected:
            return stored
        target, is_early = await self._redactions.target(room, stored.event, known)
        if target is not None:
            known[target.id] = emptied(room, target, stored.nid)
            room.replace(known[target.id])
            batch.redacted.append(Redacted(known[target.id], stored.nid))
        elif is_early:
            batch.pending_redactions.append((stored.event.redacts or "", stored.nid))
        redaction = await self._redactions.pending(room, stored)
        if redaction is None:
            return stored
        batch.redacted.append(Redacted(emptied(room, stored, redaction), redaction))
        return batch.redacted[-1].stored

    async def _reference(self, room: Room, state: ClaimedState, batch: Append) -> int:
        difference = state.difference(await self._states.state_at(room, room.state_ver))
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
        if outlier is not None and outlier.flags & REDACTED:
            event, flags = outlier.event, REDACTED
        try:
            auth = {name: known[name].event for name in event.auth_events if name in known}
            create = room.create.event if room.rules.hash_room_ids else None
            authorise_by_auth_events(room.rules, event, auth, create)
        except MissingAuthEvents:
            return None
        except NotAllowed:
            flags |= REJECTED
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
            redacted_by=outlier.redacted_by if outlier else None,
            key_nid=await self._keys.intern(event.key) if event.state_key is not None else None,
        )


def _state_after_all(event: Event, known: Mapping[str, StoredEvent]) -> int | None:
    """The state after all an event builds on, where that is known and one: on a fork the fork's."""
    earlier = [known.get(prev) for prev in event.prev_events]
    refs = {None if stored is None else stored.state_after for stored in earlier}
    return refs.pop() if len(refs) == 1 else None


def reached(starts: Iterable[str], events: Mapping[str, Event]) -> dict[str, Event]:
    """Those of the events that some events are or build on, which the others have nothing to do with.

    In v1 and v2 servers choose the ids, and events may build on each other in a circle.
    """
    found: dict[str, Event] = {}
    pending = list(starts)
    while pending:
        event_id = pending.pop()
        if event_id in events and event_id not in found:
            found[event_id] = events[event_id]
            pending += events[event_id].prev_events
    return found
