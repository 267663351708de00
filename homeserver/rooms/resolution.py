"""State resolution against storage: from state references to the resolved difference.

Finds what conflicts from differences, gathers the events the rules will ask
for, and leaves the decision to ``protocol/state_res.py``.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from homeserver.protocol.auth_rules import CITED_TYPES, auth_types_of
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import StateResolution
from homeserver.protocol.state_res import resolve_conflicts
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import Difference
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT

_REMEMBERED = 1000
#: How many events of the unconflicted state are looked at together: few at first, since most forks are young.
_FIRST_PAGE, _PAGE = 50, 1000
#: How many events' auth events are read together.
_LINKS = 200
_POWER_LEVELS = "m.room.power_levels"


#: Event numbers, descending, and the number down to which there are no others (0: there are none left).
Page: TypeAlias = tuple[list[int], int]


class Unconflicted(Protocol):
    """Tells which events all states have, apart from those that come from a difference."""

    async def newest(self, below: int) -> Page:
        """The newest of them below a number, or as many as are worth reading together."""
        ...

    async def among(self, nids: Collection[int]) -> Collection[int]:
        """Those of the events that are among them."""
        ...


class RoomState(Protocol):
    """Tells a state of a room and how others differ from it (``StateStore``: from the current one)."""

    async def difference(self, room: Room, ref: int, base_ver: int) -> Difference:
        """What has to change in version ``base_ver`` to get the state at ``ref``."""
        ...

    async def values_at_current(self, room: Room, key_nids: Collection[int]) -> dict[int, int]:
        """Several keys of it."""
        ...

    async def newest_of_current(self, room: Room, below: int, limit: int) -> list[tuple[int, int]]:
        """Of its events below a number the greatest, descending: ``(key_nid, event_nid)``."""
        ...

    async def those_of_current(self, room: Room, nids: Collection[int]) -> list[tuple[int, int]]:
        """Those of the events that are in it: ``(key_nid, event_nid)``."""
        ...


class Resolution:
    """Resolves the states after several events into one."""

    def __init__(self, db: Database, keys: Keys, events: EventCache, states: RoomState) -> None:
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
        result = dict(agreed)
        if len(agreed) < len(touched):
            conflicted_keys = {key for key in touched if key not in agreed}
            conflicts = [{key: side[key] for key in conflicted_keys} for side in sides]
            resolved = await self._resolve_conflicted(room, agreed, conflicts, unsaved)
            result.update({key: resolved.get(key, NO_EVENT) for key in conflicted_keys})
            result.update({key: nid for key, nid in resolved.items() if key not in result})
        before = current | await self._states.values_at_current(room, [k for k in result if k not in current])
        return {key: nid for key, nid in result.items() if before.get(key, NO_EVENT) != nid}

    async def _resolve_conflicted(
        self,
        room: Room,
        agreed: Mapping[int, int],
        conflicts: Sequence[Mapping[int, int]],
        unsaved: Mapping[int, StoredEvent],
    ) -> Difference:
        """``conflicts`` are the values of the keys in conflict, on each side."""
        conflicted_keys = conflicts[0].keys()
        sides = [{nid for nid in conflict.values() if nid != NO_EVENT} for conflict in conflicts]
        names = await self._keys.names(list(conflicted_keys))
        uncited = {key for key, (type_, _) in names.items() if type_ not in CITED_TYPES}
        links = _AuthLinks(self._db, unsaved)
        difference = await auth_difference(
            links,
            sides,
            [nid for nid in agreed.values() if nid != NO_EVENT],
            _Unconflicted(self._states, room, {*agreed, *conflicted_keys}),
            {conflict[key] for conflict in conflicts for key in uncited},
        )
        conflicted = set().union(*sides)
        subgraph: set[int] = set()
        if room.rules.state_resolution is StateResolution.V2_1:
            subgraph = await events_between(links, conflicted)
        full_conflicted = conflicted | difference | subgraph
        # The auth chain of a power event may lead through events that are not in conflict.
        loaded = await self._load(full_conflicted | await events_between(links, full_conflicted), unsaved)
        values = await self._unconflicted_values(room, agreed, conflicted_keys, full_conflicted, loaded)
        values = {key: unsaved.get(stored.nid, stored) for key, stored in values.items()}
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


class _Unconflicted:
    """The events of a room's current state but for the keys that differ somewhere."""

    def __init__(self, states: RoomState, room: Room, differing: Collection[int]) -> None:
        self._states = states
        self._room = room
        self._differing = differing
        self._size = _FIRST_PAGE

    async def newest(self, below: int) -> Page:
        page = await self._states.newest_of_current(self._room, below, self._size)
        is_all = len(page) < self._size
        self._size = min(2 * self._size, _PAGE)
        return self._but_differing(page), 0 if is_all else page[-1][1]

    async def among(self, nids: Collection[int]) -> list[int]:
        return self._but_differing(await self._states.those_of_current(self._room, nids))

    def _but_differing(self, entries: Iterable[tuple[int, int]]) -> list[int]:
        return [nid for key, nid in entries if key not in self._differing]


class _AuthLinks:
    """The edges of the auth graph, read in batches and kept for one resolution."""

    def __init__(self, db: Database, unsaved: Mapping[int, StoredEvent]) -> None:
        self._db = db
        self._links = {nid: stored.auth_nids for nid, stored in unsaved.items()}

    async def of(self, nids: Collection[int]) -> dict[int, tuple[int, ...]]:
        """Each event's auth events; those not known yet are read together."""
        unknown = [nid for nid in nids if nid not in self._links]
        if unknown:
            self._links.update(await event_storage.auth_links(self._db.scan, unknown))
        return {nid: self._links[nid] for nid in nids}


class _Frontier:
    """Where a walk down the auth graph stands: events by number, the newest of which is next.

    A mask says which states' full auth chains an event is in; it is final when the event's turn
    comes, since numbers follow the order of the auth graph.
    """

    def __init__(self, sides: Sequence[set[int]]) -> None:
        self._everybody = (1 << len(sides)) - 1
        self._masks: dict[int, int] = {}
        self._pending: list[int] = []
        #: How many events that are in some of the chains only are still to be walked from.
        self.open = 0
        for index, side in enumerate(sides):
            for nid in side:
                self.add(nid, 1 << index)

    @property
    def next(self) -> int:
        """The newest event that was not taken yet."""
        return -self._pending[0]

    def add(self, nid: int, mask: int) -> None:
        """An event is in the chains of these states too."""
        before = self._masks.get(nid)
        if before is None:
            heapq.heappush(self._pending, -nid)
        after = self._masks[nid] = (before or 0) | mask
        self.open += self._is_open(after) - self._is_open(before or 0)

    def add_to_all(self, nids: Iterable[int]) -> None:
        """Events are in the chains of all states."""
        for nid in nids:
            self.add(nid, self._everybody)

    def take(self) -> tuple[int, int, bool]:
        """The next event, its mask, and whether it is in some of the chains only."""
        nid = -heapq.heappop(self._pending)
        mask = self._masks[nid]
        self.open -= self._is_open(mask)
        return nid, mask, self._is_open(mask)

    @property
    def next_is_open(self) -> bool:
        """Whether it is in some of the chains only, as far as is known."""
        return self._is_open(self._masks[self.next])

    def all_open(self) -> set[int]:
        """Of the events to be walked from those that are in some of the chains only."""
        return {-nid for nid in self._pending if self._is_open(self._masks[-nid])}

    def ahead(self, count: int) -> list[int]:
        """Up to ``count`` of the events that come next, as far as the walk has to go as it looks now."""
        nids = [-nid for nid in heapq.nsmallest(count, self._pending)]
        lowest = max((i for i, nid in enumerate(nids) if self._is_open(self._masks[nid])), default=count)
        return nids[: lowest + 1]

    def _is_open(self, mask: int) -> bool:
        return mask not in {0, self._everybody}


async def auth_difference(
    links: _AuthLinks,
    sides: Sequence[set[int]],
    agreed: Iterable[int],
    unconflicted: Unconflicted,
    uncited: Collection[int] = (),
) -> set[int]:
    """Events that are in the full auth chain of some of the states and not of all.

    ``sides`` are the conflicted events of each state, ``uncited`` those of them that are of no type
    that an event may cite.  ``agreed`` and what ``unconflicted`` tells are events of all states.
    As in ``protocol/state_res.py`` a state's own events are in its full auth chain.

    The walk ends when all that is left is in every chain, so it costs what the difference
    costs, not what the room does.  An event that is in some chains only may still be in that of
    unconflicted state that is newer than it: but mostly it is unconflicted state itself (who is a
    member, the levels), which is asked first, and nothing can have cited a topic.
    """
    frontier = _Frontier(sides)
    frontier.add_to_all(agreed)
    complete_to = 1 << 62
    found: set[int] = set()
    asked = set(uncited)
    known: dict[int, tuple[int, ...]] = {}
    while frontier.open:
        while complete_to > frontier.next and frontier.next_is_open and frontier.next not in uncited:
            if unknown := frontier.all_open() - asked:
                asked |= unknown
                frontier.add_to_all(await unconflicted.among(unknown))
            else:
                page, complete_to = await unconflicted.newest(complete_to)
                frontier.add_to_all(page)
        if frontier.next not in known:
            known |= await links.of(frontier.ahead(_LINKS))
        nid, mask, is_open = frontier.take()
        if is_open:
            found.add(nid)
        for auth_nid in known[nid]:
            frontier.add(auth_nid, mask)
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
