"""The values that one key of a room's state has had: read once, then kept, with what was added since."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from homeserver.protocol.events import StateKey
from homeserver.protocol.visibility import visibility_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT

_REMEMBERED = 20_000


class KeyHistory(msgspec.Struct, frozen=True, gc=False):
    """The values of a key in a room's current state, oldest first; three tuples of one length."""

    key: StateKey
    key_nid: int | None
    versions: tuple[int, ...]
    #: ``NO_EVENT`` where the key lost its value.
    nids: tuple[int, ...]
    #: What of the value matters (``meaning_of``).
    values: tuple[str | None, ...]

    def at(self, version: int) -> str | None:
        """The value at a version of the state."""
        index = bisect.bisect_right(self.versions, version)
        return self.values[index - 1] if index else meaning_of(self.key, None)


class KeyHistories:
    """Reads histories of keys.

    One that is kept stays right: the log of a state only grows, and by what the room has at hand.
    """

    def __init__(self, db: Database, keys: Keys, events: EventCache) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        #: With the epoch and the version up to which each is complete; those used last stand last.
        self._known: OrderedDict[tuple[int, int], tuple[int, int, KeyHistory]] = OrderedDict()

    async def of(self, room: Room, key: StateKey) -> KeyHistory:
        """The history of one key, as it is on disk, which may be ahead of what was announced."""
        key_nid = await self._keys.find(key)
        if key_nid is None:
            return KeyHistory(key, None, (), (), ())
        known = self._known.get((room.nid, key_nid))
        # While writes are under way nobody can say up to which version this is on disk.
        is_settled, epoch, upto = not room.unsettled, room.epoch, room.state_ver
        if known is not None and known[0] == epoch and room.state_changes.after <= known[1]:
            history = known[2]
            new = room.state_changes.of_key(key_nid, known[1])
            if new and is_settled:
                history = await self._with(history, [(change.ver, change.event_nid) for change in new])
            elif new:
                history = await self._read(room, key, key_nid)
        else:
            history = await self._read(room, key, key_nid)
        if is_settled and not room.broken and upto == room.state_ver:
            self._keep(room.nid, key_nid, (epoch, upto, history))
        return history

    async def _read(self, room: Room, key: StateKey, key_nid: int) -> KeyHistory:
        if room.state_changes.is_whole and not room.unsettled:
            log = [(change.ver, change.event_nid) for change in room.state_changes.of_key(key_nid, 0)]
        else:
            log = [
                change
                for epoch in range(room.epoch + 1)  # positions only grow, from one epoch to the next too
                for change in await state_storage.history_of(self._db.read, room.nid, epoch, key_nid)
            ]
        return await self._with(KeyHistory(key, key_nid, (), (), ()), log)

    async def _with(self, history: KeyHistory, log: Sequence[tuple[int, int]]) -> KeyHistory:
        events = await self._events.by_nids([nid for _, nid in log if nid != NO_EVENT])
        return KeyHistory(
            history.key,
            history.key_nid,
            (*history.versions, *(ver for ver, _ in log)),
            (*history.nids, *(nid for _, nid in log)),
            (*history.values, *(meaning_of(history.key, events.get(nid)) for _, nid in log)),
        )

    def _keep(self, room_nid: int, key_nid: int, known: tuple[int, int, KeyHistory]) -> None:
        self._known[room_nid, key_nid] = known
        self._known.move_to_end((room_nid, key_nid))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def meaning_of(key: StateKey, stored: StoredEvent | None) -> str | None:
    """What an event at a key says: a membership (``None`` for no member), or the history visibility.

    No redaction takes either away.
    """
    if key[0] == MEMBER:
        membership = stored.event.content.get("membership") if stored is not None else None
        return membership if isinstance(membership, str) else None
    return visibility_of(stored.event.content if stored is not None else None)
