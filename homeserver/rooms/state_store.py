"""The state of a room at any event: a versioned map, and overlays for forks.

A *state reference* is one integer.  ``v >= 0`` is a version: the room's current
state as it was right after the event at stream position ``v`` changed it (those of earlier
epochs, from before this server left the room and came back, stay readable).
``-n`` is overlay ``n``: the state on a fork, kept as a difference from a version
or from another overlay.  Two events whose references are equal have the same
state before them; an event on the main line adds nothing to disk but its reference.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping

from homeserver.protocol.events import StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage import state
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence, pack
from homeserver.storage.state import NO_EVENT, Overlay, StateChange

#: A chain of overlays longer than this is folded into one.
MAX_OVERLAY_CHAIN = 8

_REMEMBERED_OVERLAYS = 5000

#: How many people who are in no way members a room in memory remembers as such.
_NO_MEMBERS_KEPT = 1000

#: ``key_nid`` to ``event_nid``; ``NO_EVENT`` where the key has no value.
Difference = dict[int, int]


class StateStore:
    """Reads the state at a reference, and makes references for new states."""

    def __init__(self, db: Database, keys: Keys, events: EventCache, overlay_nids: Sequence) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._overlay_nids = overlay_nids
        self._overlays: OrderedDict[int, Overlay] = OrderedDict()
        self._by_hash: dict[tuple[int, bytes], Overlay] = {}
        #: How many writes under way will store each overlay: until then only memory knows it.
        self._under_way: Counter[int] = Counter()

    async def member(self, room: Room, user_id: str) -> StoredEvent | None:
        """A user's current ``m.room.member`` event."""
        if user_id not in room.members:
            await self.load_members(room, [user_id])
        return room.members.get(user_id)

    async def load_members(self, room: Room, user_ids: Iterable[str]) -> None:
        """Have the current memberships of several users at hand in ``room.members``."""
        keys: dict[int, str] = {}
        for user_id in user_ids:
            if user_id not in room.members:
                key = await self._keys.find((MEMBER, user_id))
                if key is None:
                    _note(room, user_id, None)
                else:
                    keys[key] = user_id
        if not keys:
            return
        epoch = room.epoch
        nids = await state.current_values(self._db.read, room.nid, list(keys))
        stored = await self._events.by_nids(list(nids.values()))
        if room.epoch != epoch:  # the state has been replaced while it was read
            await self.load_members(room, keys.values())
            return
        for key, user_id in keys.items():
            _note(room, user_id, stored[nids[key]] if key in nids else None)

    async def event_at(self, room: Room, ref: int, key: StateKey) -> StoredEvent | None:
        """One key of the state at a reference."""
        if ref == room.state_ver:
            return await self.member(room, key[1]) if key[0] == MEMBER else room.state.get(key)
        key_nid = await self._keys.find(key)
        if key_nid is None:
            return None
        nid = await self.value_at(room, ref, key_nid)
        return (await self._events.by_nids([nid]))[nid] if nid != NO_EVENT else None

    async def value_at(self, room: Room, ref: int, key_nid: int) -> int:
        """One key of the state at a reference, in numbers."""
        while ref < 0:
            overlay = await self._overlay(-ref)
            for key, nid in overlay.diff:
                if key == key_nid:
                    return nid
            ref = _base_of(overlay)
        at_hand = room.state_changes.value_at(key_nid, ref)
        if at_hand is not None:
            return at_hand
        await room.settle()
        epoch = await self._epoch_of(room, ref)
        return await state.value_at(self._db.read, room.nid, epoch, key_nid, ref)

    async def state_at(self, room: Room, ref: int) -> dict[int, int]:
        """The whole state at a reference, ``key_nid`` to ``event_nid``."""
        base_ver, difference = await self._flatten(ref)
        if room.state_changes.is_whole:
            # All there ever was is in memory: most rooms are small.
            log = room.state_changes.between(0, base_ver)
            whole: dict[int, int] = {}
            _apply(whole, {change.key_nid: change.event_nid for change in log})
        else:
            await room.settle()
            whole = await self._version(room, base_ver)
        _apply(whole, difference)
        return whole

    async def without_members(self, room: Room, ref: int) -> dict[int, int]:
        """The state at a reference but for memberships; its cost does not grow with the members."""
        whole = {stored.key_nid or 0: stored.nid for stored in room.state.values()}
        difference = await self.difference(room, ref, room.state_ver)
        names = await self._keys.names(list(difference))
        _apply(whole, {key: nid for key, nid in difference.items() if names[key][0] != MEMBER})
        return whole

    async def events_at(self, room: Room, ref: int) -> dict[StateKey, StoredEvent]:
        """The whole state at a reference, as events."""
        whole = await self.state_at(room, ref)
        stored = await self._events.by_nids(list(whole.values()))
        return {event.event.key: event for event in stored.values()}

    async def difference(self, room: Room, ref: int, base_ver: int) -> Difference:
        """What has to change in version ``base_ver`` to get the state at ``ref``."""
        version, overlaid = await self._flatten(ref)
        found: Difference = {}
        if version < room.epoch_start <= base_ver:
            await room.settle()
            there, here = await self._version(room, version), await self._version(room, base_ver)
            found = differences(there, here)
        elif version > base_ver:
            for change in await self.changes(room, base_ver, version):
                found[change.key_nid] = change.event_nid
        elif version < base_ver:
            for change in await self.changes(room, version, base_ver):
                found.setdefault(change.key_nid, change.prev_event_nid)
        found.update(overlaid)
        return found

    async def changes(self, room: Room, after: int, upto: int) -> list[StateChange]:
        """The changes of the room's state in ``(after, upto]`` of its present epoch, oldest first."""
        if after >= room.state_changes.after:
            return room.state_changes.between(after, upto)
        await room.settle()
        # There is hardly more in the log than in the timeline that goes with it.
        reader = self._db.read if after >= room.recent_after else self._db.scan
        return await state.changes(reader, room.nid, room.epoch, after, upto)

    async def overlay_on(self, room: Room, ref: int, changes: Mapping[int, int]) -> Overlay:
        """The overlay that says "the state at ``ref``, with these changes".

        One that says the same already is returned in its place.  Whoever refers to it
        stores it in the same transaction; storing it again does no harm.
        """
        parent, base_ver, chain, diff = 0, ref, 1, dict(changes)
        if ref < 0:
            below = await self._overlay(-ref)
            if below.chain < MAX_OVERLAY_CHAIN:
                parent, base_ver, chain = below.nid, below.base_ver, below.chain + 1
            else:
                base_ver, diff = await self._flatten(ref)
                diff |= changes
        entries = tuple(sorted(diff.items()))
        flat = [room.epoch, base_ver, parent, *(number for entry in entries for number in entry)]
        digest = hashlib.sha256(pack(flat)).digest()[:16]
        # In memory first: one that says the same may be on its way to the disk.
        overlay = self._by_hash.get((room.nid, digest)) or await state.overlay_by_hash(
            self._db.read, room.nid, digest
        )
        if overlay is None:
            nid = self._overlay_nids.next()
            overlay = Overlay(nid, room.nid, room.epoch, base_ver, parent, chain, digest, entries)
        self._remember(overlay)
        return overlay

    def hold(self, overlays: Iterable[Overlay]) -> None:
        """A write that stores these is queued."""
        for overlay in overlays:
            self._under_way[overlay.nid] += 1

    def let_go(self, overlays: Iterable[Overlay]) -> None:
        """That write has ended."""
        for overlay in overlays:
            self._under_way[overlay.nid] -= 1
            if self._under_way[overlay.nid] <= 0:
                del self._under_way[overlay.nid]

    async def values_at_current(self, room: Room, key_nids: Collection[int]) -> dict[int, int]:
        """Several keys of the current state."""
        await room.settle()
        return await state.current_values(self._db.scan, room.nid, list(key_nids))

    async def newest_of_current(self, room: Room, below: int, limit: int) -> list[tuple[int, int]]:
        """Of the current state's events below a number the greatest, descending: ``(key_nid, event_nid)``."""
        await room.settle()
        return await state.newest_of_current(self._db.scan, room.nid, below, limit)

    async def those_of_current(self, room: Room, nids: Collection[int]) -> list[tuple[int, int]]:
        """Those of the events that are in the current state: ``(key_nid, event_nid)``."""
        await room.settle()
        return await state.those_of_current(self._db.scan, room.nid, list(nids))

    async def _version(self, room: Room, ver: int) -> dict[int, int]:
        epoch = await self._epoch_of(room, ver)
        if epoch == room.epoch and ver >= room.checkpoint_ver:
            whole = await state.current(self._db.scan, room.nid)
            # Read after the state: a change that came in between is undone, not doubled.
            newer = await state.changes(self._db.scan, room.nid, epoch, ver, 1 << 62)
            _apply(whole, {change.key_nid: change.prev_event_nid for change in reversed(newer)})
            return whole
        start, whole = await state.checkpoint_before(self._db.scan, room.nid, epoch, ver)
        changes = await state.changes(self._db.scan, room.nid, epoch, start, ver)
        _apply(whole, {change.key_nid: change.event_nid for change in changes})
        return whole

    async def _epoch_of(self, room: Room, ver: int) -> int:
        """The epoch a version belongs to: positions only grow, from one epoch to the next too."""
        epoch, start = room.epoch, room.epoch_start
        while epoch and ver < start:
            epoch -= 1
            # One that another took the place of has left nothing.
            start = await state.first_version(self._db.read, room.nid, epoch) or start
        return epoch

    async def _flatten(self, ref: int) -> tuple[int, Difference]:
        """A reference as a version and what an overlay changes in it."""
        difference: Difference = {}
        while ref < 0:
            overlay = await self._overlay(-ref)
            difference = dict(overlay.diff) | difference
            ref = _base_of(overlay)
        return ref, difference

    async def _overlay(self, nid: int) -> Overlay:
        overlay = self._overlays.get(nid)
        if overlay is None:
            overlay = await state.overlay(self._db.read, nid)
            if overlay is None:
                raise LookupError(f"state overlay {nid} is not stored")
            self._remember(overlay)
        else:
            self._overlays.move_to_end(nid)
        return overlay

    def _remember(self, overlay: Overlay) -> None:
        self._overlays[overlay.nid] = overlay
        self._overlays.move_to_end(overlay.nid)
        self._by_hash[overlay.room_nid, overlay.hash] = overlay
        for nid in list(itertools.islice(self._overlays, max(0, len(self._overlays) - _REMEMBERED_OVERLAYS))):
            if nid not in self._under_way:
                oldest = self._overlays.pop(nid)
                del self._by_hash[oldest.room_nid, oldest.hash]


def differences(there: Mapping[int, int], here: Mapping[int, int]) -> Difference:
    """What has to change in the state ``here`` to get the state ``there``."""
    return {
        key: there.get(key, NO_EVENT) for key in there.keys() | here.keys() if there.get(key) != here.get(key)
    }


def _note(room: Room, user_id: str, stored: StoredEvent | None) -> None:
    """Keep what was read, unless a change made meanwhile is known, which is newer.

    That somebody is no member is only kept for so many: anybody can ask about anybody.
    """
    if stored is not None or len(room.members) < room.joined_members + _NO_MEMBERS_KEPT:
        room.members.setdefault(user_id, stored)


def _base_of(overlay: Overlay) -> int:
    return -overlay.parent if overlay.parent else overlay.base_ver


def _apply(whole: dict[int, int], changes: Mapping[int, int]) -> None:
    for key, nid in changes.items():
        if nid == NO_EVENT:
            whole.pop(key, None)
        else:
            whole[key] = nid
