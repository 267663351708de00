"""State resolution against storage: from state references to the resolved difference.

Finds what conflicts from differences, gathers the events the rules will ask
for, and leaves the decision to ``protocol/state_res.py``.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from homeserver.protocol.auth_rules import auth_types_of
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import StateResolution
from homeserver.protocol.state_res import resolve_conflicts
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import Difference, StateStore
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT

_REMEMBERED = 1000
#: How many events of the unconflicted state are looked at together.
_PAGE = 500
_POWER_LEVELS = "m.room.power_levels"


#: Event numbers, descending, and the number down to which there are no others (0: there are none left).
Page: TypeAlias = tuple[list[int], int]


class Resolution:
    """Resolves the states after several events into one."""

    def __init__(self, db: Database, keys: Keys, events: EventCache, states: StateStore) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._states = states
        self._memo: OrderedDict[tuple[int, int, int, frozenset[int]], Difference] = OrderedDict()

    async def resolve(
        self, room: Room, refs: Collection[int], unsaved: Mapping[int, StoredEvent] | None = None
    ) -> Difference:
        """The resolution of the states at ``refs``, as a difference from the room's current state.

        ``unsaved`` are events that a reference may lead to and that are not stored yet.
        Caller holds the room lock.
        """
        distinct = sorted(set(refs))
        memo_key = (room.nid, room.epoch, room.state_ver, frozenset(distinct))
        known = self._memo.get(memo_key)
        if known is None:
            base = room.state_ver
            differences = [await self._states.difference(room, ref, base) for ref in distinct]
            known = await self._resolve_differences(room, differences, unsaved or {})
            self._memo[memo_key] = known
            if len(self._memo) > _REMEMBERED:
                self._memo.popitem(last=False)
        return known

    async def resolve_maps(
        self, room: Room, differences: Sequence[Difference], unsaved: Mapping[int, StoredEvent]
    ) -> Difference:
        """The same for states given as differences from the room's current state."""
        return await self._resolve_differences(room, differences, unsaved)

    async def _resolve_differences(
        self, room: Room, differences: Sequence[Difference], unsaved: Mapping[int, StoredEvent]
    ) -> Difference:
        touched = sorted({key for difference in differences for key in difference})
        current = await self._states.values_at_current(room, touched)
        sides = [
            {key: difference.get(key, current.get(key, NO_EVENT)) for key in touched}
            for difference in differences
        ]
        agreed = {key: sides[0][key] for key in touched if len({side[key] for side in sides}) == 1}
        conflicted_sides = [
            {nid for key, nid in side.items() if key not in agreed and nid != NO_EVENT} for side in sides
        ]
        result = dict(agreed)
        if len(agreed) < len(touched):
            conflicted_keys = {key for key in touched if key not in agreed}
            resolved = await self._resolve_conflicted(
                room, agreed, conflicted_keys, conflicted_sides, unsaved
            )
            result.update({key: resolved.get(key, NO_EVENT) for key in conflicted_keys})
            result.update({key: nid for key, nid in resolved.items() if key not in result})
        before = current | await self._states.values_at_current(room, [k for k in result if k not in current])
        return {key: nid for key, nid in result.items() if before.get(key, NO_EVENT) != nid}

    async def _resolve_conflicted(
        self,
        room: Room,
        agreed: Mapping[int, int],
        conflicted_keys: Collection[int],
        sides: Sequence[set[int]],
        unsaved: Mapping[int, StoredEvent],
    ) -> Difference:
        differing = {*agreed, *conflicted_keys}

        async def newest_unconflicted(below: int) -> Page:
            page = await self._states.newest_of_current(room, below, _PAGE)
            nids = [nid for key, nid in page if key not in differing]
            return nids, page[-1][1] if len(page) == _PAGE else 0

        links = _AuthLinks(self._db, unsaved)
        difference = await auth_difference(
            links, sides, [nid for nid in agreed.values() if nid != NO_EVENT], newest_unconflicted
        )
        conflicted = set().union(*sides)
        subgraph: set[int] = set()
        if room.rules.state_resolution is StateResolution.V2_1:
            subgraph = await events_between(links, conflicted)
        full_conflicted = conflicted | difference | subgraph
        # The auth chain of a power event may lead through events that are not in conflict.
        loaded = await self._load(full_conflicted | await events_between(links, full_conflicted), unsaved)
        values = await self._unconflicted_values(room, agreed, conflicted_keys, full_conflicted, loaded)
        loaded |= {stored.nid: stored for stored in values.values()}
        power_levels = values.get((_POWER_LEVELS, ""))
        if power_levels is not None:
            loaded |= await self._load([power_levels.nid], unsaved)

        def unconflicted_value(key: StateKey) -> str | None:
            stored = values.get(key)
            return stored.id if stored else None

        resolved = resolve_conflicts(
            room.rules,
            unconflicted=unconflicted_value,
            conflicted=[loaded[nid].id for nid in conflicted],
            auth_difference=[loaded[nid].id for nid in difference],
            subgraph=[loaded[nid].id for nid in subgraph],
            events={stored.id: stored.event for stored in loaded.values()},
        )
        nids = {stored.id: nid for nid, stored in loaded.items()}
        return {await self._keys.intern(key): nids[event_id] for key, event_id in resolved.items()}

    async def _load(self, nids: Iterable[int], unsaved: Mapping[int, StoredEvent]) -> dict[int, StoredEvent]:
        """Events with their auth events, and the power levels those stand on, down to the first."""
        loaded: dict[int, StoredEvent] = {}
        wanted = set(nids)
        first = True
        while wanted:
            found = {nid: unsaved[nid] for nid in wanted if nid in unsaved}
            found |= await self._events.by_nids([nid for nid in wanted if nid not in found])
            loaded |= found
            followed = [stored for stored in found.values() if first or stored.event.type == _POWER_LEVELS]
            wanted = {nid for stored in followed for nid in stored.auth_nids} - loaded.keys()
            first = False
        return loaded

    async def _unconflicted_values(
        self,
        room: Room,
        agreed: Mapping[int, int],
        conflicted_keys: Collection[int],
        full_conflicted: Iterable[int],
        loaded: Mapping[int, StoredEvent],
    ) -> dict[StateKey, StoredEvent]:
        """Those entries of the unconflicted state that checking the events can ask for, or replace."""
        keys: set[StateKey] = {("m.room.create", ""), (_POWER_LEVELS, "")}
        for nid in full_conflicted:
            keys |= _keys_asked_for(room, loaded[nid].event)
        wanted: dict[int, StateKey] = {}
        for key in keys:
            key_nid = await self._keys.find(key)
            if key_nid is not None and key_nid not in conflicted_keys:
                wanted[key_nid] = key
        values = await self._states.values_at_current(room, list(wanted)) | dict(agreed)
        nids = {key: values.get(key_nid, NO_EVENT) for key_nid, key in wanted.items()}
        stored = await self._events.by_nids([nid for nid in nids.values() if nid != NO_EVENT])
        return {key: stored[nid] for key, nid in nids.items() if nid != NO_EVENT}


def _keys_asked_for(room: Room, event: Event) -> set[StateKey]:
    keys = set(auth_types_of(room.rules, event))
    keys.add(event.key)
    return keys


class _AuthLinks:
    """The edges of the auth graph, read in batches and kept for one resolution."""

    def __init__(self, db: Database, unsaved: Mapping[int, StoredEvent]) -> None:
        self._db = db
        self._links = {nid: stored.auth_nids for nid, stored in unsaved.items()}

    async def of(self, nids: Collection[int]) -> dict[int, tuple[int, ...]]:
        unknown = [nid for nid in nids if nid not in self._links]
        if unknown:
            self._links.update(await event_storage.auth_links(self._db.scan, unknown))
        return {nid: self._links[nid] for nid in nids}


async def auth_difference(
    links: _AuthLinks,
    sides: Sequence[set[int]],
    unconflicted: Iterable[int],
    more_unconflicted: Callable[[int], Awaitable[Page]],
) -> set[int]:
    """Events that are in the full auth chain of some of the states and not of all.

    ``sides`` are the conflicted events of each state.  ``unconflicted`` are events of all states,
    ``more_unconflicted(below)`` others, the newest first, as far down as they turn out to matter.

    Walks down from the newest event with a mask of the states whose auth chains reach each
    one; numbers follow the order of the auth graph, so an event's mask is final when its turn
    comes.  An event of a state is in that state's auth chain only if another one cites it, but
    all it cites is.  The walk ends when all that is left is reached by every state or by none.
    """
    everybody = (1 << len(sides)) - 1
    holders: dict[int, int] = dict.fromkeys(unconflicted, everybody)
    for index, side in enumerate(sides):
        for nid in side:
            holders[nid] = holders.get(nid, 0) | 1 << index
    reached: dict[int, int] = {}
    pending = [-nid for nid in holders]
    heapq.heapify(pending)

    def is_open(nid: int) -> bool:
        mask = reached.get(nid, 0)
        return mask not in {0, everybody} or mask | holders.get(nid, 0) != everybody

    undecided = sum(map(is_open, holders))
    complete_to = 1 << 62
    found: set[int] = set()
    while undecided:
        while complete_to > -pending[0]:
            page, complete_to = await more_unconflicted(complete_to)
            for nid in page:
                if nid in holders or nid in reached:
                    undecided -= is_open(nid)
                else:
                    heapq.heappush(pending, -nid)
                holders[nid] = everybody
                undecided += is_open(nid)
        nid = -heapq.heappop(pending)
        undecided -= is_open(nid)
        mask = reached.get(nid, 0)
        if mask not in {0, everybody}:
            found.add(nid)
        mask |= holders.get(nid, 0)
        for auth_nid in (await links.of([nid]))[nid]:
            if auth_nid in reached or auth_nid in holders:
                undecided -= is_open(auth_nid)
            else:
                heapq.heappush(pending, -auth_nid)
            reached[auth_nid] = reached.get(auth_nid, 0) | mask
            undecided += is_open(auth_nid)
    return found


async def events_between(links: _AuthLinks, ends: set[int]) -> set[int]:
    """Events on a path of auth events from one of ``ends`` to another, those included.

    Of the conflicted state this is the conflicted state subgraph (since v12).
    """
    floor = min(ends)
    seen: dict[int, tuple[int, ...]] = {}
    wanted = set(ends)
    while wanted:
        found = await links.of(wanted)
        seen |= found
        wanted = {nid for auth in found.values() for nid in auth if nid >= floor and nid not in seen}
    leads_down: set[int] = set()
    for nid in sorted(seen):  # auth events come first: each is decided before what builds on it
        if nid in ends or any(auth in leads_down for auth in seen[nid]):
            leads_down.add(nid)
    return leads_down
