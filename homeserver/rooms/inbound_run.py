"""Events that do nothing but continue a room, taken in together: the short way through the checks on receipt.

Nearly all that other servers send builds on the room's newest event, or on the one before it in the
same transaction.  What ``Inbound.receive`` finds out about each is then the same for all of them
and is asked once, and they are stored in one transaction and announced together.  In its steps:

1. None of them is stored here.
5. They cite events that are stored and accepted, or come before them in the run.
6. Nothing is missing, and the state before each is the room's current state:
7. and 8. are one and the same check; and so is 5. where they cite just what is in that state.

The first event of which that is not so, or that anything refuses, ends the run: ``Inbound`` decides
about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from homeserver.protocol.auth_rules import (
    NotAllowed,
    auth_types_of,
    check_against_state,
    check_auth_events,
)
from homeserver.protocol.events import Event, StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.policy import policy_server_of
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.timeline import Addition, Timeline
from homeserver.storage.events import StoredEvent

#: Judging them is not interrupted, so that there are not many.
MAX_RUN = 50

#: What changes another event, or which servers take part.
_APART = frozenset({"m.room.create", "m.room.redaction", "m.room.server_acl"})
#: Where the rules look at more of a message than who sent it, of which type, and what it cites.
_CONTENT_COUNTS = frozenset(
    {"m.room.member", "m.room.power_levels", "m.room.aliases", "m.room.third_party_invite"}
)


class Runs:
    """Takes in events that continue a room."""

    def __init__(self, *, rooms: Rooms, events: EventCache, states: StateStore, timeline: Timeline) -> None:
        self._rooms = rooms
        self._events = events
        self._states = states
        self._timeline = timeline

    async def take(self, room_id: str, events: Sequence[Event]) -> list[StoredEvent]:
        """Those of the first events that continue the room, as they were stored; there may be none.

        The events have passed the checks that need no state.  Raises ``StaleRoomError`` where the
        room turned out to be another than it was taken for: nothing is stored then.
        """
        room = await self._rooms.find(room_id)
        if room is None or not _continuing(room, events[:1]):
            return []
        async with self._rooms.lock(room_id) as room:
            # The same events may have come from another server, and be on their way to the disk.
            await room.settle()
            room.check_sound()
            run = _continuing(room, events[:MAX_RUN])
            selected = _selected(room, run)
            run = [event for event in run if event.event_id in selected]
            stored = await self._events.by_ids([event.event_id for event in run])
            stored |= await self._events.by_ids(list({auth for event in run for auth in event.auth_events}))
            members = {key[1] for keys in selected.values() for key in keys if key[0] == MEMBER}
            await self._states.load_members(room, members)
            judge = _Judge(self._rooms.is_in, room, selected, stored)
            written = await self._timeline.stage_in_turn(room, run, judge)
        return await written if written is not None else []


class _Judge:
    """Says of each event of a run, when its turn comes, whether it belongs in it."""

    def __init__(
        self,
        is_in: Callable[[Room], bool],
        room: Room,
        selected: Mapping[str, Sequence[StateKey]],
        stored: Mapping[str, StoredEvent],
    ) -> None:
        self._is_in = is_in
        self._room = room
        self._selected = selected
        self._stored = stored
        #: What was allowed: of a message the rules see no more than this.
        self._allowed: set[tuple[int, str, str, tuple[str, ...]]] = set()

    def __call__(self, event: Event, before: Mapping[str, StoredEvent]) -> Addition | None:
        """The event to be placed; ``before`` are those of the run that were."""
        room = self._room
        cited = [before.get(auth) or self._stored.get(auth) for auth in event.auth_events]
        known = [each for each in cited if each is not None]
        if event.event_id in self._stored or len(known) < len(cited):
            return None
        question = (room.state_ver, event.sender, event.type, event.auth_events)
        if question not in self._allowed:
            if not self._is_allowed(event, known):
                return None
            if event.state_key is None and event.type not in _CONTENT_COUNTS:
                self._allowed.add(question)
        auth_nids = tuple(each.nid for each in known)
        return Addition(event=event, auth_nids=auth_nids, state_before=room.state_ver)

    def _is_allowed(self, event: Event, cited: Sequence[StoredEvent]) -> bool:
        """By what it cites and by the room's current state, and without anybody else being asked."""
        room = self._room
        rules, create = room.rules, room.create.event
        if not self._is_in(room) or policy_server_of(room, event.type, event.state_key) is not None:
            return False
        named = [stored.event for stored in cited]
        by_named = {auth.key: auth for auth in named if auth.state_key is not None}
        if rules.hash_room_ids:
            by_named.setdefault(create.key, create)
        current = {create.key: create}
        for key in self._selected[event.event_id]:
            if (stored := room.current(key)) is not None:
                current[key] = stored.event
        try:
            check_auth_events(rules, event, named, create if rules.hash_room_ids else None)
            if _ids(by_named) != _ids(current):
                check_against_state(rules, event, lambda type_, key: by_named.get((type_, key)))
            check_against_state(rules, event, lambda type_, key: current.get((type_, key)))
        except NotAllowed:
            return False
        return True


def _continuing(room: Room, events: Sequence[Event]) -> list[Event]:
    """Those of the first events that build on all extremities, and then each on the one before it."""
    if room.partial is not None or any(tip.state_after != room.state_ver for tip in room.tips):
        return []
    run: list[Event] = []
    newest = {tip.id for tip in room.tips}
    seen = set(newest)
    for event in events:
        apart = event.type in _APART or event.room_id != room.room_id or event.event_id in seen
        if apart or not newest or newest != set(event.prev_events):
            break
        run.append(event)
        seen.add(event.event_id)
        newest = {event.event_id}
    return run


def _selected(room: Room, run: Sequence[Event]) -> dict[str, list[StateKey]]:
    """The state that each event is judged by, as far as their contents can be read."""
    selected: dict[str, list[StateKey]] = {}
    for event in run:
        try:
            selected[event.event_id] = auth_types_of(room.rules, event)
        except NotAllowed:
            break
    return selected


def _ids(state: Mapping[StateKey, Event]) -> dict[StateKey, str]:
    return {key: event.event_id for key, event in state.items()}
