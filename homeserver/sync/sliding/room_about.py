"""What is told of a room beside its events: its name, who is in it, whether it is a direct chat.

Specification: MSC4186, "Currently or previously joined rooms".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from homeserver.protocol.events import StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.heroes import heroes
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.client_events import LookedUp
from homeserver.sync.sliding.connections import SentRoom
from homeserver.sync.sliding.request import RoomConfig

_NAME, _AVATAR = ("m.room.name", ""), ("m.room.avatar", "")

#: State that changed; ``None`` for what is no more.
State: TypeAlias = Mapping[StateKey, StoredEvent | None]


class RoomReading(msgspec.Struct, frozen=True, kw_only=True):
    """One room to be told to one connection."""

    user_id: str
    device_id: str | None
    room: Room
    membership: LocalMembership
    config: RoomConfig
    #: What was told before; ``None`` for a room that is new to the connection.
    sent: SentRoom | None
    #: The position of the request before; 0 for a first one.
    since: int
    now: int
    ephemeral: int
    ignored: frozenset[str]
    is_dm: bool
    stable: bool
    #: For the newest events of all rooms of the response.
    looked_up: LookedUp

    @property
    def joined(self) -> bool:
        """Whether the user is in the room."""
        return self.membership.membership == "join"

    @property
    def upto(self) -> int:
        """The last position that is shown: that of leaving for those who left."""
        return self.now if self.joined else min(self.membership.pos, self.now)


class RoomAbout:
    """Writes what is told beside events."""

    def __init__(self, db: Database, events: EventCache) -> None:
        self._db = db
        self._events = events

    async def write(self, reading: RoomReading, known: SentRoom | None, changed: State) -> dict[str, Any]:
        """Names, counts and what else is told beside events, as far as it changed."""
        room = reading.room
        about: dict[str, Any] = {}
        for field, key, name in (("name", _NAME, "name"), ("avatar", _AVATAR, "url")):
            value = _text(changed.get(key), name)
            # An empty name is none; that it is gone the older form has no word for.
            if value is not None or (known is not None and key in changed and reading.stable):
                about[field] = value
        if (known is None and (reading.is_dm or not reading.stable)) or (
            known is not None and known.is_dm != reading.is_dm
        ):
            about["is_dm"] = reading.is_dm
        members_changed = known is None or any(key[0] == MEMBER for key in changed)
        if not reading.joined or not (members_changed or _NAME in changed):
            return about
        if room.partial is None:
            about["joined_count"] = room.joined_members
            about["invited_count"] = room.invited_members
        named = room.state_event("m.room.name")
        if named is None or not named.content.get("name"):
            about["heroes"] = await self._heroes(reading)
        return about

    async def _heroes(self, reading: RoomReading) -> list[dict[str, str]]:
        found = await heroes(self._db.read, reading.room, reading.user_id)
        events = await self._events.by_nids([nid for _, nid in found])
        told = []
        for user_id, nid in found:
            hero = {"user_id": user_id}
            for name in ("displayname", "avatar_url"):
                value = _text(events.get(nid), name)
                if value is not None:
                    hero[name] = value
            told.append(hero)
        return told


def _text(stored: StoredEvent | None, name: str) -> str | None:
    value = stored.event.content.get(name) if stored is not None else None
    return value if isinstance(value, str) and value else None
