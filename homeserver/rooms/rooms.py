"""The rooms in memory: loaded when asked for, let go when others are used more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from types import TracebackType

from homeserver.errors import MatrixError, not_found
from homeserver.protocol.ids import is_room_id
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.partial import Partial
from homeserver.rooms.recent_changes import MOST, RecentChanges
from homeserver.rooms.room import RECENT_EVENTS, Room
from homeserver.storage import events as event_storage
from homeserver.storage import partial_joins
from homeserver.storage import rooms as room_storage
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database
from homeserver.storage.numbers import Sequence
from homeserver.storage.rooms import RoomRow

#: How long somebody waits for the rest of a room's state, in seconds.
_PATIENCE_S = 300.0


class Rooms:
    """Finds rooms; there is one ``Room`` object for a room at any time."""

    def __init__(
        self, db: Database, events: EventCache, room_nids: Sequence, server_name: str, capacity: int = 5000
    ) -> None:
        self._db = db
        self._events = events
        self._room_nids = room_nids
        self._server_name = server_name
        self._capacity = capacity
        self._rooms: OrderedDict[int, Room] = OrderedDict()
        self._nids: dict[str, int] = {}
        self._loading: dict[int, asyncio.Future[Room]] = {}

    async def get(self, room_id: str) -> Room:
        """A room this server has (or had) members in.

        Raises ``M_NOT_FOUND`` for any other room.
        """
        room = await self.find(room_id)
        if room is None or not room.last_pos:
            raise not_found("Unknown room")
        return room

    async def find(self, room_id: str) -> Room | None:
        """A room this server has heard of, if only by an invite (``last_pos`` is 0 then)."""
        nid = self._nids.get(room_id)
        if nid is not None and nid in self._rooms:
            return await self.by_nid(nid)
        if not is_room_id(room_id):
            return None
        row = await room_storage.by_id(self._db.read, room_id)
        return await self.by_nid(row.nid) if row else None

    async def by_nid(self, nid: int) -> Room:
        """A room by its number; raises ``LookupError`` when there is none."""
        room = self._rooms.get(nid)
        if room is not None and not room.broken:
            self._rooms.move_to_end(nid)
            return room
        loading = self._loading.get(nid)
        if loading is None:
            loading = asyncio.ensure_future(self._load(nid, room))
            self._loading[nid] = loading
            loading.add_done_callback(lambda _: self._loading.pop(nid, None))
        return await asyncio.shield(loading)

    def lock(self, room_id: str) -> LockedRoom:
        """A room with its lock held, to decide about its next event: to be entered with ``async with``.

        Entering raises ``M_NOT_FOUND`` as ``get`` does.
        """
        return LockedRoom(self, room_id)

    def is_kept(self, room: Room) -> bool:
        """Whether this is the one ``Room`` object of its room, and what it holds is so."""
        return not room.broken and self._rooms.get(room.nid) is room

    async def whole(self, room: Room, patience: float = _PATIENCE_S) -> Room:
        """The room with its whole state, for which this waits where only a part of it is here.

        Raises a ``MatrixError`` of status 504 when that takes more than ``patience`` seconds.
        """
        try:
            async with asyncio.timeout(patience):
                while room.partial is not None:
                    await room.partial.over.wait()
                    room = await self.by_nid(room.nid)
                await room.settle()
        except TimeoutError:
            raise MatrixError(504, "M_UNKNOWN", "The state of the room is still being fetched") from None
        return room

    def is_in(self, room: Room) -> bool:
        """Whether this server has a joined member in the room."""
        return room.servers.get(self._server_name, 0) > 0

    def new(self, room_id: str, rules: RoomVersion) -> Room:
        """A room that is about to be created or joined; ``add`` it once something of it is stored."""
        row = RoomRow(
            nid=self._room_nids.next(),
            room_id=room_id,
            version=rules.id,
            epoch=0,
            state_ver=0,
            last_pos=0,
            depth=0,
            tips=(),
            joined_members=0,
            invited_members=0,
        )
        return Room(row, (), {}, stored=False)

    def add(self, room: Room) -> Room:
        """Keep a room that was made with ``new``; the one that is kept already wins."""
        known = self._nids.get(room.room_id)
        if known is not None and known in self._rooms and not self._rooms[known].broken:
            return self._rooms[known]
        self._rooms[room.nid] = room
        self._nids[room.room_id] = room.nid
        self._let_go()
        return room

    async def of_version(self, room_id: str, rules: RoomVersion) -> Room:
        """A room this server is invited to, knocks at or joins, kept from now on if it is new.

        What the version of a room is that this server has never been in is hearsay: the newest
        word counts.  ``ValueError`` for another version than a room has that it has been in.
        """
        room = await self.find(room_id) or self.add(self.new(room_id, rules))
        if room.rules != rules:
            if room.last_pos:
                raise ValueError(f"the room has version {room.rules.id}")
            room.rules = rules
            if room.stored:
                await self._db.write(partial(room_storage.set_version, nid=room.nid, version=rules.id))
        return room

    def discard(self, room: Room) -> None:
        """Let go of a room nothing of which was stored."""
        if self._rooms.get(room.nid) is room:
            del self._rooms[room.nid]
            del self._nids[room.room_id]

    async def _load(self, nid: int, before: Room | None) -> Room:
        if before is not None:
            await before.settle()
        row = await room_storage.by_nid(self._db.read, nid)
        if row is None:
            raise LookupError(f"room {nid} is not stored")
        tips = await self._events.by_nids(list(row.tips))
        servers = await room_storage.servers(self._db.read, nid)
        room = Room(row, tuple(tips[tip] for tip in row.tips), servers)
        if row.epoch:
            room.epoch_start = await state_storage.first_version(self._db.read, nid, row.epoch) or 0
        state = await state_storage.current_without_members(self._db.read, nid)
        stored = await self._events.by_nids(list(state.values()))
        room.state = {event.event.key: event for event in stored.values()}
        recent = await event_storage.timeline_backward(self._db.read, nid, row.last_pos, RECENT_EVENTS + 1)
        # Between the last event of an earlier stay and this one's first is a gap.
        live = [event for event in recent if event.pos is not None and event.pos > room.epoch_start]
        room.recent.extend(reversed(live[:RECENT_EVENTS]))
        is_all = len(live) <= RECENT_EVENTS
        room.recent_after = room.epoch_start if is_all else live[RECENT_EVENTS].pos or 0
        await self._load_changes(room)
        await self._load_partial(room, before)
        if before is not None:
            # Whoever waits for the lock of the room as it was must not decide beside those who have it now.
            room.lock = before.lock
        self._rooms[nid] = room
        self._nids[room.room_id] = nid
        self._let_go()
        return room

    async def _load_changes(self, room: Room) -> None:
        changes = await state_storage.newest_changes(self._db.read, room.nid, room.epoch, MOST + 1)
        is_all = len(changes) <= MOST
        room.state_changes = RecentChanges(room.epoch_start)
        room.state_changes.note(changes)
        if is_all or changes[0].ver <= room.checkpoint_ver:
            count = sum(change.ver > room.checkpoint_ver for change in changes)
        else:
            count = await state_storage.count_changes(
                self._db.read, room.nid, room.epoch, room.checkpoint_ver
            )
        room.changes_since_checkpoint = count

    async def _load_partial(self, room: Room, before: Room | None) -> None:
        """Whether only a part of the state is here; who waited at the room as it was looks again."""
        row = await partial_joins.of_room(self._db.read, room.nid)
        if row is not None:
            room.partial = Partial(row.join_nid, row.resident, row.received)
        if before is not None and before.partial is not None:
            before.partial.over.set()

    def _let_go(self) -> None:
        while len(self._rooms) > self._capacity:
            nid, room = next(iter(self._rooms.items()))
            if room.lock.locked() or room.unsettled or room.partial is not None:
                self._rooms.move_to_end(nid)
                return
            del self._rooms[nid]
            del self._nids[room.room_id]


class LockedRoom:
    """A room's lock for one ``async with``; made by ``Rooms.lock``."""

    __slots__ = ("_lock", "_room_id", "_rooms")

    def __init__(self, rooms: Rooms, room_id: str) -> None:
        self._rooms = rooms
        self._room_id = room_id

    async def __aenter__(self) -> Room:
        while True:
            room = await self._rooms.get(self._room_id)
            self._lock = room.lock
            await self._lock.acquire()
            if self._rooms.is_kept(room):
                return room
            self._lock.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
