"""Telling who comes into a room from who only changes their name there."""

from __future__ import annotations

from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.state_store import StateStore
from homeserver.storage.events import StoredEvent
from homeserver.storage.state import NO_EVENT


class Joining:
    """Looks at what a membership was before an event."""

    def __init__(self, states: StateStore, events: EventCache) -> None:
        self._states = states
        self._events = events

    async def is_new(self, room: Room, stored: StoredEvent) -> bool:
        """Whether a join is one of somebody who was not joined before it."""
        if stored.key_nid is None or stored.state_before is None:
            return False
        nid = await self._states.value_at(room, stored.state_before, stored.key_nid)
        before = (await self._events.by_nids([nid])).get(nid) if nid != NO_EVENT else None
        return membership_of(before) != "join"
