"""Deciding events once more: those taken in since a join, now that the state before it is known.

Does what ``Inbound`` and ``Timeline`` did when they came, in the same order, on the whole state
in place of a part of it.  States are kept as differences from the state before the join;
nothing is written here.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from homeserver.protocol.auth_rules import NotAllowed, auth_types_of, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.extremities import MAX_EXTREMITIES, MAX_STATES
from homeserver.rooms.missing import ClaimedState
from homeserver.rooms.outliers import MissingAuthEvents, authorise_by_auth_events
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import Difference, StateStore
from homeserver.rooms.timeline import MAX_BEHIND_HIDDEN
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, REJECTED, SENT_HERE, SOFT_FAILED, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT, Overlay, StateChange

_AT_ONCE = 20


class BaseState:
    """The state before the join, as ``Resolution`` asks for a room's current state."""

    def __init__(self, values: Mapping[int, int]) -> None:
        self.values = values
        self._keys = {nid: key for key, nid in values.items()}
        self._nids = sorted(self._keys)

    def value(self, difference: Difference, key_nid: int) -> int:
        """One key of a state that differs from this one; ``NO_EVENT`` for none."""
        return difference.get(key_nid, self.values.get(key_nid, NO_EVENT))

    def normal(self, difference: Difference) -> Difference:
        """The difference without what does not differ."""
        return {key: nid for key, nid in difference.items() if self.values.get(key, NO_EVENT) != nid}

    async def difference(self, room: Room, ref: int, base_ver: int) -> Difference:
        raise LookupError("states are given as differences here")

    async def values_at_current(self, room: Room, key_nids: Collection[int]) -> dict[int, int]:
        return {key: self.values[key] for key in key_nids if key in self.values}

    async def newest_of_current(self, room: Room, below: int, limit: int) -> list[tuple[int, int]]:
        end = bisect.bisect_left(self._nids, below)
        return [(self._keys[nid], nid) for nid in reversed(self._nids[max(0, end - limit) : end])]

    async def those_of_current(self, room: Room, nids: Collection[int]) -> list[tuple[int, int]]:
        return [(self._keys[nid], nid) for nid in nids if nid in self._keys]


class _State(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A state of the room, and the reference it is stored under."""

    difference: Difference
    ref: int


class Decided(msgspec.Struct):
    """What the events come to."""

    #: Every event with its new flags and state references; without a position where it has
    #: none yet, or none any more.
    events: list[StoredEvent] = msgspec.field(default_factory=list)
    tips: list[StoredEvent] = msgspec.field(default_factory=list)
    #: The current state as a difference from the state before the join, and its version.
    current: Difference = msgspec.field(default_factory=dict)
    version: int = 0
    changes: list[StateChange] = msgspec.field(default_factory=list)
    overlays: list[Overlay] = msgspec.field(default_factory=list)


class SecondDecision:
    """Decides the events of one room; ``room`` has the epoch that the references are to be for."""

    def __init__(
        self,
        *,
        db: Database,
        keys: Keys,
        events: EventCache,
        states: StateStore,
        room: Room,
        create: StoredEvent,
        base: Mapping[int, int],
        base_ver: int,
    ) -> None:
        self._keys = keys
        self._events = events
        self._states = states
        self._room = room
        self._create = create.event
        self._base = BaseState(base)
        self._resolution = Resolution(db, keys, events, self._base)
        self._current = _State({}, base_ver)
        self._states_known = {frozenset[tuple[int, int]](): self._current}
        self._after: dict[str, _State] = {}
        self._decided: dict[int, StoredEvent] = {}
        self._tips: dict[str, _State] = {}
        self._undecided: dict[int, StoredEvent] = {}
        self._kept_back: Collection[int] = ()
        #: Events that others build on and that have not come yet.
        self._wanted: set[str] = set()
        self._last = base_ver
        self._result = Decided()

    async def decide(
        self,
        received: Sequence[StoredEvent],
        claims: Mapping[int, ClaimedState],
        elsewhere: Mapping[str, Difference],
        kept_back: Collection[int] = (),
    ) -> Decided:
        """Decide events in the order they came, the join first; one that came again is there again.

        ``claims`` are the states before those of them that had a gap before them, as another server
        tells them, by number; ``elsewhere`` the states after earlier events that they build on, by id;
        ``kept_back`` those that are not to be shown whatever the state allows.
        """
        self._kept_back = kept_back
        self._undecided = {stored.nid: stored for stored in received}
        for event_id, difference in elsewhere.items():
            self._after[event_id] = await self._state(self._base.normal(difference))
        join, *since = received
        await self._decide(join, self._current)
        for count, stored in enumerate(since, 1):
            earlier = self._decided.get(stored.nid)
            if earlier is None or earlier.rejected:
                await self._decide(stored, await self._state_before(stored.event, claims.get(stored.nid)))
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._result.events = list(self._decided.values())
        self._result.current, self._result.version = self._current.difference, self._current.ref
        self._result.tips = [stored for stored in self._result.events if stored.id in self._tips]
        return self._result

    async def _decide(self, stored: StoredEvent, before: _State) -> None:
        """The checks of ``Inbound`` from step 5 on, and what ``Timeline`` makes of the event."""
        event = msgspec.structs.replace(stored.event, rejected=False)
        flags = stored.flags & (SENT_HERE | REDACTED)
        if await self._refused_by_auth_events(event, stored.auth_nids) or await self._refused(event, before):
            if stored.nid in self._decided:
                return  # it came again, and nothing is different
            flags |= REJECTED
            event = msgspec.structs.replace(event, rejected=True)
        elif stored.nid in self._kept_back or await self._refused(event, self._current):
            flags |= SOFT_FAILED
        decided = msgspec.structs.replace(
            stored, event=event, flags=flags, state_before=before.ref, state_after=before.ref
        )
        if decided.hidden:
            decided = msgspec.structs.replace(decided, pos=None)
        after = before
        if not decided.rejected:
            after = await self._place(decided, before)
            decided = msgspec.structs.replace(decided, state_after=after.ref)
        self._after[event.event_id] = after
        self._decided[stored.nid] = decided
        self._wanted.discard(event.event_id)
        if not decided.hidden:
            self._wanted.update(prev for prev in event.prev_events if prev not in self._after)

    async def _state_before(self, event: Event, claim: ClaimedState | None) -> _State:
        known = {id(state): state for prev in event.prev_events if (state := self._after.get(prev))}
        sides = [state.difference for state in known.values()]
        if claim is not None:
            sides.insert(0, await self._claimed(claim))
        elif len(known) == 1:
            return next(iter(known.values()))
        elif not known:  # nothing it builds on is here, and nobody told the state before it
            return self._current
        return await self._state(await self._resolved(sides))

    async def _claimed(self, claim: ClaimedState) -> Difference:
        """What another server says of a state: that of it which was accepted here so far."""
        accepted: list[StoredEvent] = []
        for stored in claim.events:
            if stored.key_nid is None or stored.room_nid != self._room.nid:
                continue
            if stored.nid in self._decided:
                rejected = self._decided[stored.nid].rejected
            elif stored.nid in self._undecided:  # nothing but an auth event before its turn came
                event = msgspec.structs.replace(stored.event, rejected=False)
                rejected = await self._refused_by_auth_events(event, stored.auth_nids)
            else:
                rejected = stored.rejected
            if not rejected:
                accepted.append(stored)
        here = self._current.difference
        now = {**self._base.values, **here}
        changed = ClaimedState(tuple(accepted), claim.whole).difference(
            {key: nid for key, nid in now.items() if nid != NO_EVENT}
        )
        return self._base.normal({**here, **changed})

    async def _resolved(self, sides: Sequence[Difference]) -> Difference:
        return await self._resolution.resolve_maps(self._room, sides, self._decided)

    async def _refused_by_auth_events(self, event: Event, auth_nids: Iterable[int]) -> bool:
        auth = await self._load(auth_nids)
        create = self._create if self._room.rules.hash_room_ids else None
        try:
            authorise_by_auth_events(
                self._room.rules, event, {stored.id: stored.event for stored in auth.values()}, create
            )
        except (NotAllowed, MissingAuthEvents):
            return True
        return False

    async def _refused(self, event: Event, at: _State) -> bool:
        state: dict[StateKey, Event] = {self._create.key: self._create}
        keys = {}
        for key in auth_types_of(self._room.rules, event):
            key_nid = await self._keys.find(key)
            if key_nid is not None and (nid := self._base.value(at.difference, key_nid)) != NO_EVENT:
                keys[nid] = key
        state |= {keys[nid]: stored.event for nid, stored in (await self._load(keys)).items()}
        try:
            check_against_state(self._room.rules, event, lambda type_, key: state.get((type_, key)))
        except NotAllowed:
            return True
        return False

    async def _place(self, stored: StoredEvent, before: _State) -> _State:
        """Move the room on by an event that is not rejected; the state after it."""
        passed = set(stored.event.prev_events)
        if not stored.hidden:
            passed |= await self._behind_hidden(stored.event)
        tips = {event_id: state for event_id, state in self._tips.items() if event_id not in passed}
        is_tip = not (stored.hidden or (tips and stored.id in self._wanted)) and len(tips) < MAX_EXTREMITIES
        alone = is_tip and not tips
        difference = before.difference
        if stored.key_nid is not None:
            difference = self._base.normal({**difference, stored.key_nid: stored.nid})
        if not stored.hidden:
            # The next position there is room for, where the event has none of its own in between.
            self._last = stored.pos if stored.pos is not None else self._last + 1
        if alone:
            after = self._move_to(difference)
        else:
            after = before if stored.key_nid is None else await self._state(difference)
        if stored.hidden:
            return after
        # Resolution may ask for the event itself.
        self._decided[stored.nid] = stored
        self._tips = {**tips, stored.id: after} if is_tip else tips
        if not alone:
            distinct = {id(state): state.difference for state in self._tips.values()}
            if len(distinct) > MAX_STATES:
                newest = [after] if is_tip else []
                distinct = {id(state): state.difference for state in (self._current, *newest)}
            sides = list(distinct.values())
            self._move_to(await self._resolved(sides) if len(sides) > 1 else sides[0])
        return after

    async def _behind_hidden(self, event: Event) -> set[str]:
        """Events that an event builds on by way of refused ones, as ``Timeline`` finds them."""
        behind: set[str] = set()
        wanted = set(event.prev_events)
        while wanted and len(behind) < MAX_BEHIND_HIDDEN:
            known = (await self._events.by_ids(sorted(wanted))).values()
            # What had not come by then hid nothing.
            found = [
                self._decided.get(stored.nid, stored)
                for stored in known
                if stored.nid in self._decided or stored.nid not in self._undecided
            ]
            wanted = {prev for stored in found if stored.hidden for prev in stored.event.prev_events} - behind
            behind |= wanted
        return behind

    def _move_to(self, difference: Difference) -> _State:
        """Make a state the current one: a new version, unless nothing changes."""
        before = self._current.difference
        changed = sorted(
            key
            for key in before.keys() | difference.keys()
            if self._base.value(before, key) != self._base.value(difference, key)
        )
        if not changed:
            return self._current
        version = self._last
        self._result.changes += [
            StateChange(key, version, self._base.value(difference, key), self._base.value(before, key))
            for key in changed
        ]
        self._current = _State(difference, version)
        self._states_known[frozenset(difference.items())] = self._current
        return self._current

    async def _state(self, difference: Difference) -> _State:
        """A state by its difference: one that is known, or a new overlay on the current version."""
        name = frozenset(difference.items())
        known = self._states_known.get(name)
        if known is None:
            here = self._current.difference
            changes = {
                key: self._base.value(difference, key)
                for key in here.keys() | difference.keys()
                if self._base.value(difference, key) != self._base.value(here, key)
            }
            overlay = await self._states.overlay_on(self._room, self._current.ref, changes)
            self._result.overlays.append(overlay)
            known = self._states_known[name] = _State(difference, -overlay.nid)
        return known

    async def _load(self, nids: Iterable[int]) -> dict[int, StoredEvent]:
        """Events by number, as they were decided here."""
        wanted = list(nids)
        found = {nid: self._decided[nid] for nid in wanted if nid in self._decided}
        return found | dict(await self._events.by_nids([nid for nid in wanted if nid not in found]))
