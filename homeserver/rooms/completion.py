"""Fetching the rest of the state of rooms that were joined with a part of it.

In the background, from one server after the other, until it is here; a restarted server goes
on with it.  Then one transaction replaces what the room's log said since the join by what it
would say had the whole state been known (``rooms/second_decision.py``), so that a crash
leaves either a room with a part of its state or one with all of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from homeserver.errors import RemoteError
from homeserver.protocol.events import Event
from homeserver.rooms.adopt import Unacceptable, state_by_key
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.missing import VITAL, ClaimedState, Missing
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.whole_state import Received, WholeState
from homeserver.storage import partial_joins
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.tasks import Background

_log = structlog.get_logger()

#: Seconds before all servers are asked again, doubled each time up to the longest.
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 600.0
#: Servers asked before a pause, and rooms that are completed at the same time.
_SERVERS_AT_ONCE = 10
_ROOMS_AT_ONCE = 8
#: How often events that arrive meanwhile may hold up the end.
_ROUNDS = 3
#: For so many events with a gap before them the state before it is asked for.
_MAX_CLAIMS = 50


class Completion:
    """Completes rooms."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        inbound: Inbound,
        missing: Missing,
        remote: RemoteRooms,
        whole: WholeState,
        background: Background,
        server_name: str,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._inbound = inbound
        self._missing = missing
        self._remote = remote
        self._whole = whole
        self._background = background
        self._server_name = server_name
        self._pause = pause
        self._free = asyncio.Semaphore(_ROOMS_AT_ONCE)
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Go on with the rooms whose state was not whole when the server stopped."""
        for room_id in await partial_joins.rooms(self._db.scan):
            self.begin(room_id)

    def begin(self, room_id: str) -> None:
        """Complete a room that has just been joined with a part of its state."""
        if room_id not in self._under_way:
            work = self._background.start(self._complete(room_id), f"state of {room_id}")
            self._under_way[room_id] = work

    async def idle(self) -> None:
        """Wait until every room has its whole state, or has been left."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def _complete(self, room_id: str) -> None:
        try:
            for pause in _pauses():
                async with self._free:
                    is_over = await self._try_servers(room_id)
                if is_over:
                    return
                await self._pause(pause)
        finally:
            self._under_way.pop(room_id, None)

    async def _try_servers(self, room_id: str) -> bool:
        """Ask one server after the other; whether there is nothing left to do."""
        room = await self._rooms.find(room_id)
        servers = self._servers(room) if room is not None else []
        for server in servers:
            room = await self._rooms.find(room_id)
            if room is None or room.partial is None:
                return True
            try:
                await self._from(server, room)
            except (RemoteError, Dropped, Unacceptable) as error:
                _log.info("state not completed", room_id=room_id, server=server, reason=str(error))
            except Exception:
                _log.exception("state not completed", room_id=room_id, server=server)
            else:
                break
        # The room as it is now; nothing is awaited after this, so that a join from here on begins anew.
        room = await self._rooms.find(room_id)
        return room is None or room.partial is None

    def _servers(self, room: Room) -> list[str]:
        """Servers that may know the state: the one that let this one in, then those with most members."""
        if room.partial is None:
            return []
        others = sorted(room.servers, key=lambda server: -room.servers[server])
        servers = dict.fromkeys([room.partial.resident, *others])
        return [server for server in servers if server != self._server_name][:_SERVERS_AT_ONCE]

    async def _from(self, server: str, room: Room) -> None:
        """Complete a room with what one server says of its state."""
        if room.partial is None:
            return
        join_nid = room.partial.join_nid
        join = (await self._events.by_nids([join_nid]))[join_nid]
        state = await self._state_before(server, room, join.event)
        base = state_by_key(state)
        created_by = base.get(room.create.event.key)
        if created_by is None or created_by.nid != room.create.nid:
            raise Unacceptable("the room was created by another event")
        if any(key in room.state and key not in base for key in VITAL):
            raise Unacceptable("vital state is missing")
        claims: dict[int, ClaimedState] = {}
        for round_number in itertools.count(1):
            await self._fetch_claims(room, claims)
            async with self._rooms.lock(room.room_id) as room:  # noqa: PLR1704 - it may have been loaded anew
                await room.settle()
                room.check_sound()
                if room.partial is None or room.partial.join_nid != join_nid:
                    return  # this server has left, and perhaps come back
                notes = await partial_joins.events(self._db.scan, room.nid)
                unasked = [note for note in notes if note.origin and note.event_nid not in claims]
                if unasked and round_number < _ROUNDS:
                    continue
                received = Received(tuple(note.event_nid for note in notes), claims)
                written = await self._whole.put(room, base, received)
            await written
            _log.info("state completed", room_id=room.room_id, server=server, state_events=len(base))
            return

    async def _state_before(self, server: str, room: Room, join: Event) -> Sequence[StoredEvent]:
        """The state before the join, as a server knows it, stored.

        Where one event comes right before the join it is the state after that one, which
        servers know that have not heard of the join.
        """
        if len(join.prev_events) == 1:
            try:
                return await self._state_after(server, room, join.prev_events[0])
            except RemoteError as error:
                if error.status not in {403, 404}:
                    raise
        return (await self._missing.state_at(server, room, join.event_id, self._inbound.store_claimed)).events

    async def _state_after(self, server: str, room: Room, before: str) -> Sequence[StoredEvent]:
        store = self._inbound.store_claimed
        state = (await self._missing.state_at(server, room, before, store)).events
        known = await self._events.by_id(before)
        if known is None:
            known = (await store(room, [await self._remote.event(server, before)])).get(before)
        if known is None:
            raise RemoteError(
                server, "the event before the join is not to be had", reachable=True, transient=True
            )
        if known.key_nid is None or known.rejected:
            return state
        return [*(stored for stored in state if stored.key_nid != known.key_nid), known]

    async def _fetch_claims(self, room: Room, claims: dict[int, ClaimedState]) -> None:
        """Ask for the states before events that had a gap before them; ``claims`` is added to."""
        for note in await partial_joins.events(self._db.scan, room.nid):
            if note.origin is None or note.event_nid in claims or len(claims) >= _MAX_CLAIMS:
                continue
            stored = (await self._events.by_nids([note.event_nid]))[note.event_nid]
            try:
                claims[note.event_nid] = await self._missing.state_at(
                    note.origin, room, stored.id, self._inbound.store_claimed
                )
            except (RemoteError, Dropped) as error:
                _log.info("state before event not known", event_id=stored.id, reason=str(error))


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_S)
