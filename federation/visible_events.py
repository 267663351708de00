"""What a server may see of a room's events, and what is left of those it may not.

Specification: client-server API, "Room history visibility".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.ids import server_of
from homeserver.protocol.redaction import redact
from homeserver.protocol.visibility import SHARED, WORLD_READABLE, server_may_see, visibility_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.retention import Retention
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.state_store import StateStore
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys

_VISIBILITY = ("m.room.history_visibility", "")


class VisibleEvents:
    """Shows events to servers."""

    def __init__(self, *, states: StateStore, events: EventCache, keys: Keys, retention: Retention) -> None:
        self._retention = retention
        self._states = states
        self._events = events
        self._keys = keys

    async def pdus(self, room: Room, server_name: str, events: Sequence[StoredEvent]) -> list[bytes]:
        """The events as PDUs for a server; redacted where none of its users may see them."""
        memberships: dict[int, list[str]] = {}
        return [
            stored.event.json
            if await self._may_see(room, server_name, stored, memberships)
            else encode(redact(stored.event.pdu, room.rules))
            for stored in events
        ]

    async def among(self, room: Room, server_name: str, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Those of the events that some user of a server may see, but for what is over."""
        memberships: dict[int, list[str]] = {}
        return [
            stored
            for stored in events
            if not self.is_over(room, stored) and await self._may_see(room, server_name, stored, memberships)
        ]

    def is_over(self, room: Room, stored: StoredEvent) -> bool:
        """Whether an event is given to nobody any more, by the room's retention policy."""
        return self._retention.is_over(room, stored)

    async def leads_to_a_join(self, room: Room, server_name: str, stored: StoredEvent) -> bool:
        """Whether a user of a server joined right after an event.

        The state there is the one they joined with, which their server may have been given
        without its members, whether or not it may see what was said before.
        """
        members = await self._members(room, server_name, room.state_ver)
        return any(
            stored.id in member.event.prev_events for member in members if membership_of(member) == "join"
        )

    async def _may_see(
        self, room: Room, server_name: str, stored: StoredEvent, memberships: dict[int, list[str]]
    ) -> bool:
        """``memberships`` remembers those of the server's users by state reference."""
        if stored.state_before is None:  # an auth event, which the room could not be judged without
            return True
        event = stored.event
        setting = await self._states.event_at(room, stored.state_before, _VISIBILITY)
        visibility = visibility_of(setting.event.content if setting else None)
        is_in = room.servers.get(server_name, 0) > 0
        if visibility == WORLD_READABLE or (visibility == SHARED and is_in):
            return True
        if stored.state_before not in memberships:
            memberships[stored.state_before] = await self._memberships(room, server_name, stored.state_before)
        is_visibility = event.is_state and event.key == _VISIBILITY
        return server_may_see(
            visibility=visibility,
            memberships_at_event=memberships[stored.state_before],
            joined_since=is_in,
            visibility_after=visibility_of(event.content) if is_visibility else None,
            memberships_after=_own_membership(stored, server_name),
        )

    async def _memberships(self, room: Room, server_name: str, ref: int) -> list[str]:
        """The memberships of a server's users in the state at a reference."""
        return _membership_words(await self._members(room, server_name, ref))

    async def _members(self, room: Room, server_name: str, ref: int) -> list[StoredEvent]:
        """The member events of a server's users in the state at a reference."""
        state = await self._states.state_at(room, ref)
        names = await self._keys.names(list(state))
        members = (
            state[key_nid]
            for key_nid, key in names.items()
            if key[0] == MEMBER and server_of(key[1]) == server_name
        )
        return list((await self._events.by_nids(list(members))).values())


def _own_membership(stored: StoredEvent, server_name: str) -> list[str]:
    event = stored.event
    if event.type != MEMBER or event.state_key is None or server_of(event.state_key) != server_name:
        return []
    return _membership_words([stored])


def _membership_words(events: Iterable[StoredEvent]) -> list[str]:
    words = (stored.event.content.get("membership") for stored in events)
    return [word for word in words if isinstance(word, str)]
