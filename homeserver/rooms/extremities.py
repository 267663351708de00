"""Forward extremities: what this server's next event builds on, and which states make the current one.

A room has few as a rule.  A peer may make as many as it likes; what they cost is bounded here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.rooms.compose import MAX_PREV_EVENTS, choose_prev_events
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.storage.events import StoredEvent
from homeserver.storage.state import Overlay

#: The most a room has: what comes on a fork beyond them is an extremity only for those who build on it.
MAX_EXTREMITIES = 1000
#: The most states that are resolved into one.
MAX_STATES = 20


class Base(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What an event builds on, and the state before it that follows from that."""

    prev_events: tuple[StoredEvent, ...]
    #: A reference for ``StateStore``.
    state: int
    #: What ``state`` refers to, when that may not be stored yet.
    overlay: Overlay | None = None


class Extremities:
    """Finds the state before an event of this server's."""

    def __init__(self, states: StateStore, resolution: Resolution) -> None:
        self._states = states
        self._resolution = resolution

    async def base(self, room: Room) -> Base:
        """What the room's next event is to build on.  Caller holds the room lock.

        The state before it is the current one wherever the extremities it can name have all the
        states there are.
        """
        if len(room.tips) <= MAX_PREV_EVENTS:  # all of them can be named, and make the current state
            return Base(room.tips, room.state_ver)
        chosen = choose_prev_events(room.tips)
        refs = _states_after(chosen)
        if refs == _states_after(room.tips):
            return Base(chosen, room.state_ver)
        difference = await self._resolution.resolve(room, refs)
        if not difference:
            return Base(chosen, room.state_ver)
        overlay = await self._states.overlay_on(room, room.state_ver, difference)
        return Base(chosen, -overlay.nid, overlay)


def states_to_resolve(room: Room, tips: Sequence[StoredEvent], newest: StoredEvent) -> set[int]:
    """References to the states that make the current one, once ``newest`` is in the room.

    Those after all extremities; where they are too many, what was resolved from the others
    stands for them.
    """
    refs = _states_after(tips)
    if len(refs) <= MAX_STATES:
        return refs
    return {room.state_ver, *_states_after([newest])}


def _states_after(tips: Sequence[StoredEvent]) -> set[int]:
    return {tip.state_after for tip in tips if tip.state_after is not None}
