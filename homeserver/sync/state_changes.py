"""The state a response has to tell, so that with the timeline behind it the client knows the state now.

State comes from the log of the room's *current* state, at positions: what this server
held to be true at the time, whatever forks there were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from homeserver.protocol.events import StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.partial import members_cited_by
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.state_store import StateStore
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT, StateChange


class Changes(msgspec.Struct, frozen=True, gc=False):
    """State events to tell."""

    events: list[StoredEvent]
    #: Whether memberships changed in what was looked at.
    members_changed: bool


NO_CHANGES = Changes([], False)


class StateChanges:
    """Reads the state between positions."""

    def __init__(self, keys: Keys, events: EventCache, states: StateStore) -> None:
        self._keys = keys
        self._events = events
        self._states = states

    async def between(self, room: Room, since: int, start: int, upto: int, told: Collection[int]) -> Changes:
        """What changed after ``since``, as it was at ``start``.

        What changed after ``start`` only is added as it is at ``upto``, unless the timeline
        tells it: ``told`` are the numbers of its events.
        """
        if room.state_ver <= since:
            return NO_CHANGES
        log = await self._log(room, since, upto)
        values = _values_at(log, start) | _values_after(log, start, told)
        names = await self._keys.names([change.key_nid for change in log])
        return Changes(await self._load(values.values()), any(key[0] == MEMBER for key in names.values()))

    async def after(self, room: Room, since: int, upto: int) -> dict[StateKey, StoredEvent | None]:
        """What changed in ``(since, upto]``, as it is at ``upto``; ``None`` for what is no more."""
        log = await self._log(room, since, upto)
        values = {change.key_nid: change.event_nid for change in log}
        names = await self._keys.names(list(values))
        events = await self._events.by_nids([nid for nid in values.values() if nid != NO_EVENT])
        return {names[key_nid]: events.get(nid) for key_nid, nid in values.items()}

    async def whole(
        self, room: Room, start: int, upto: int, told: Collection[int], *, members: bool
    ) -> Changes:
        """The whole state at ``start``, and later changes as ``between`` adds them.

        Without ``members`` no memberships are among them.
        """
        log = await self._log(room, start, upto)
        later = _values_after(log, start, told)
        if members:
            values = await self._states.state_at(room, start) | later
        else:
            values = await self._without_members(room, start)
            names = await self._keys.names(list(later))
            values |= {key: nid for key, nid in later.items() if names[key][0] != MEMBER}
        return Changes(await self._load(values.values()), True)

    async def members(
        self, room: Room, pos: int, user_ids: Collection[str], told: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """The member events of some users, as they were at a position.

        While members are missing from the room's state, those of senders of the events ``told``
        are what these cite.
        """
        ref = min(pos, room.state_ver)
        found = [await self._states.event_at(room, ref, (MEMBER, user_id)) for user_id in sorted(user_ids)]
        members = [stored for stored in found if stored is not None]
        if room.partial is not None and len(members) < len(user_ids):
            missing = set(user_ids) - {stored.event.state_key for stored in members}
            members += await members_cited_by(self._events, told, missing)
        return members

    async def _without_members(self, room: Room, pos: int) -> dict[int, int]:
        """The state at a position but for memberships: that of now, with its changes undone."""
        values = {stored.key_nid or 0: stored.nid for stored in room.state.values()}
        log = await self._log(room, pos, room.state_ver)
        names = await self._keys.names([change.key_nid for change in log])
        for change in reversed(log):
            if names[change.key_nid][0] != MEMBER:
                values[change.key_nid] = change.prev_event_nid
        return values

    async def _log(self, room: Room, after: int, upto: int) -> list[StateChange]:
        if after >= min(upto, room.state_ver):
            return []
        return await self._states.changes(room, after, upto)

    async def _load(self, nids: Iterable[int]) -> list[StoredEvent]:
        wanted = [nid for nid in nids if nid != NO_EVENT]
        return list((await self._events.by_nids(wanted)).values())


def _values_at(log: Iterable[StateChange], start: int) -> dict[int, int]:
    return {change.key_nid: change.event_nid for change in log if change.ver <= start}


def _values_after(log: Iterable[StateChange], start: int, told: Collection[int]) -> dict[int, int]:
    final = {change.key_nid: change.event_nid for change in log if change.ver > start}
    return {key: nid for key, nid in final.items() if nid not in told}
