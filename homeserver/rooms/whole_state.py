"""Putting the whole state in the place of a part of it, in one transaction."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from homeserver.protocol.events import StateKey
from homeserver.protocol.ids import server_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.missing import ClaimedState
from homeserver.rooms.partial import Partial
from homeserver.rooms.policy import policy_server_of
from homeserver.rooms.recent_changes import RecentChanges
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.second_decision import Decided, SecondDecision
from homeserver.rooms.state_store import Difference, StateStore, differences
from homeserver.rooms.timeline import Timeline
from homeserver.storage import partial_joins
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Append
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import MEMBERSHIPS, LocalMembership
from homeserver.storage.state import NO_EVENT, CurrentEntry, StateChange
from homeserver.turns import each_in_turns, in_turns


class Received(msgspec.Struct, frozen=True, gc=False):
    """What has been taken in since a join."""

    #: Event numbers in the order they came, the join first.
    event_nids: tuple[int, ...]
    #: The states before those of them that had a gap before them, as other servers tell them.
    claims: Mapping[int, ClaimedState]


class _Rows(msgspec.Struct, gc=False):
    """The whole current state as rows."""

    entries: list[CurrentEntry]
    #: What the log begins with: the state before the join.
    first: list[StateChange]
    servers: Counter[str]
    memberships: Counter[str]
    #: Of users of this server.
    here: dict[str, StoredEvent]


class WholeState:
    """Replaces the state of rooms that were joined with a part of it."""

    def __init__(
        self,
        *,
        db: Database,
        keys: Keys,
        events: EventCache,
        states: StateStore,
        timeline: Timeline,
        positions: NumberSequence,
        server_name: str,
    ) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._states = states
        self._timeline = timeline
        self._positions = positions
        self._server_name = server_name

    async def put(
        self, room: Room, base: Mapping[StateKey, StoredEvent], received: Received
    ) -> asyncio.Future[list[StoredEvent]]:
        """Make ``base`` the state before the join, and decide again what has come since.

        Returns as ``Timeline.stage`` does.  Caller holds the lock of a settled room.
        """
        known = await self._events.by_nids(received.event_nids)
        events = [known[nid] for nid in received.event_nids]
        base_ver = events[0].state_before or 0
        before = await self._states.state_at(room, room.state_ver)
        decided = await self._decided(room, base, base_ver, events, received.claims)
        state = await self._state_now(base, decided)
        rows = await self._rows(base, base_ver, state)
        whole = {stored.key_nid or 0: stored.nid for stored in state.values()}
        names = await self._keys.names(list(before))
        wrong = await self._to_be_told(differences(whole, before), before)
        known_here = await room_storage.local_memberships_in(self._db.read, room.nid)

        # Nothing is awaited from here on: what follows happens at once.
        since = self._positions.next()
        late = self._give_positions(decided)
        if wrong:
            _tell_from(decided, wrong, whole, since)
        batch = Append(
            expected_last_pos=room.last_pos,
            placed=decided.events,
            overlays=decided.overlays,
            clear_state=True,
            changes=[*rows.first, *decided.changes],
            entries=rows.entries,
            local_memberships=self._local_memberships(room.nid, rows.here, known_here, since),
            servers=dict(rows.servers),
        )
        batch.also.append(partial(partial_joins.complete, room_nid=room.nid, pos=since, old_epoch=room.epoch))
        was_partial, room.partial = room.partial, None
        _move_on(room, base_ver, state, rows, decided)
        room.members |= {key[1]: None for nid, key in names.items() if key[0] == MEMBER and nid not in whole}
        room.full_since, room.last_pos = since, self._positions.last
        for stored in late:
            room.remember(stored)
        written = self._timeline.write(room, batch, late)
        written.add_done_callback(lambda _: _finish(room, was_partial))
        return written

    async def _decided(
        self,
        room: Room,
        base: Mapping[StateKey, StoredEvent],
        base_ver: int,
        events: Sequence[StoredEvent],
        claims: Mapping[int, ClaimedState],
    ) -> Decided:
        numbers = {stored.key_nid or 0: stored.nid for stored in base.values()}
        next_epoch = msgspec.structs.replace(room.row(), epoch=room.epoch + 1)
        decision = SecondDecision(
            db=self._db,
            keys=self._keys,
            events=self._events,
            states=self._states,
            room=Room(next_epoch, (), {}),
            create=room.create,
            base=numbers,
            base_ver=base_ver,
        )
        # Why they were kept back is not noted, and their policy server is not asked again.
        kept_back = {
            stored.nid
            for stored in events
            if stored.soft_failed and policy_server_of(room, stored.event.type, stored.event.state_key)
        }
        elsewhere = await self._elsewhere(room, events, numbers)
        return await decision.decide(events, claims, elsewhere, kept_back)

    async def _elsewhere(
        self, room: Room, events: Sequence[StoredEvent], base: Mapping[int, int]
    ) -> dict[str, Difference]:
        """The states after events of an earlier stay that some of the events build on."""
        here = {stored.id for stored in events}
        wanted = {prev for stored in events for prev in stored.event.prev_events} - here
        known = await self._events.by_ids(list(wanted))
        return {
            event_id: differences(await self._states.state_at(room, stored.state_after), base)
            for event_id, stored in known.items()
            if stored.room_nid == room.nid and stored.state_after is not None
        }

    async def _state_now(
        self, base: Mapping[StateKey, StoredEvent], decided: Decided
    ) -> dict[StateKey, StoredEvent]:
        """The current state as events."""
        here = {stored.nid: stored for stored in decided.events}
        others = [nid for nid in decided.current.values() if nid != NO_EVENT and nid not in here]
        found = await self._events.by_nids(others) | here
        names = await self._keys.names(list(decided.current))
        state = {key: here.get(stored.nid, stored) for key, stored in base.items()}
        for key_nid, nid in decided.current.items():
            if nid == NO_EVENT:
                state.pop(names[key_nid], None)
            else:
                state[names[key_nid]] = found[nid]
        return state

    async def _to_be_told(self, changed: Difference, before: Mapping[int, int]) -> list[int]:
        """Of the keys that have another value now those that clients were told of, or are to know.

        Members that were merely missing are shown when they are needed.
        """
        names = await self._keys.names([key for key in changed if key not in before])
        return sorted(key for key in changed if key in before or names[key][0] != MEMBER)

    def _give_positions(self, decided: Decided) -> list[StoredEvent]:
        """Put events that were kept back wrongly at the end of the timeline; those events."""
        late: dict[int, StoredEvent] = {}
        for index, stored in enumerate(decided.events):
            if not stored.hidden and stored.pos is None:
                late[stored.nid] = msgspec.structs.replace(stored, pos=self._positions.next())
                decided.events[index] = late[stored.nid]
        decided.tips = [late.get(tip.nid, tip) for tip in decided.tips]
        return list(late.values())

    def _local_memberships(
        self, room_nid: int, members: Mapping[str, StoredEvent], known: Mapping[str, str], pos: int
    ) -> list[LocalMembership]:
        """The memberships of local users that are others now than they were taken for."""
        here = {user_id: members.get(user_id) for user_id in {**known, **members}}
        return [
            LocalMembership(
                user_id,
                room_nid,
                membership_of(stored),
                stored.nid if stored is not None else NO_EVENT,
                stored.event.sender if stored is not None else user_id,
                pos,
            )
            for user_id, stored in here.items()
            if membership_of(stored) != known.get(user_id, "leave")
        ]

    async def _rows(
        self, base: Mapping[StateKey, StoredEvent], base_ver: int, state: Mapping[StateKey, StoredEvent]
    ) -> _Rows:
        first = await each_in_turns(
            lambda stored: StateChange(stored.key_nid or 0, base_ver, stored.nid, NO_EVENT), base.values()
        )
        rows = _Rows([], first, Counter(), Counter(), {})
        async for key, stored in in_turns(state.items()):
            number = None
            if key[0] == MEMBER:
                membership, server = membership_of(stored), server_of(key[1])
                number = MEMBERSHIPS[membership]
                rows.memberships[membership] += 1
                if membership == "join":
                    rows.servers[server] += 1
                if server == self._server_name:
                    rows.here[key[1]] = stored
            rows.entries.append(CurrentEntry(stored.key_nid or 0, stored.nid, number))
        return rows


def _tell_from(decided: Decided, wrong: Sequence[int], whole: Mapping[int, int], since: int) -> None:
    """Note at a position what was wrong before, so that who was told it is told what is right."""
    for key in wrong:
        nid = whole.get(key, NO_EVENT)
        decided.changes.append(StateChange(key, since, nid, nid))
    for index, stored in enumerate(decided.events):
        if [stored.nid] == [tip.nid for tip in decided.tips] and stored.state_after == decided.version:
            decided.events[index] = msgspec.structs.replace(stored, state_after=since)
            decided.tips = [decided.events[index]]
    decided.version = since


def _move_on(
    room: Room, base_ver: int, state: Mapping[StateKey, StoredEvent], rows: _Rows, decided: Decided
) -> None:
    """Give the room in memory what is about to be stored."""
    room.epoch += 1
    room.epoch_start = base_ver
    room.state_ver = decided.version
    room.state_changes = RecentChanges(decided.version)
    room.checkpoint_ver = 0
    room.changes_since_checkpoint = len(rows.first) + len(decided.changes)
    room.state = {key: stored for key, stored in state.items() if key[0] != MEMBER}
    room.members = {key[1]: stored for key, stored in state.items() if key[0] == MEMBER}
    room.servers = dict(rows.servers)
    room.joined_members, room.invited_members = rows.memberships["join"], rows.memberships["invite"]
    room.tips = tuple(decided.tips)
    shown = {stored.nid: stored for stored in decided.events if not stored.hidden}
    room.recent = deque(shown[stored.nid] for stored in room.recent if stored.nid in shown)


def _finish(room: Room, was_partial: Partial | None) -> None:
    """The write has ended, well or badly: those who waited look again."""
    if was_partial is not None:
        was_partial.over.set()
    # Until then the disk did not know them; whoever holds the lock may rely on those it asked for.
    if not room.lock.locked():
        room.members.clear()
