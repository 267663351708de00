"""Who is typing where: kept in memory only, for as long as they said.

Specification: client-server API, "Typing Notifications"; server-server API, the same.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Any

import msgspec

from homeserver.clock import Clock
from homeserver.errors import forbidden
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.edus import RemoteEdus
from homeserver.rooms.room import Room, may_be_joined, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import EphemeralPositions

#: In milliseconds: what clients usually ask for, and the most they get.
DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 120_000

#: Other servers do not say when their users stop; they repeat themselves while somebody types.
_REMOTE_TIMEOUT_MS = 60_000

_MAX_TYPING = 200
_MAX_ROOMS = 10_000


class _RoomTyping(msgspec.Struct):
    #: Ephemeral position of the last change.
    pos: int
    #: User id to when they stop, in seconds of the monotonic clock.
    until: dict[str, float] = msgspec.field(default_factory=dict)


class Typing:
    """The users who are typing in each room."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        states: StateStore,
        positions: EphemeralPositions,
        clock: Clock,
        notifier: Notifier,
        edus: RemoteEdus,
        server_name: str,
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._positions = positions
        self._clock = clock
        self._notifier = notifier
        self._edus = edus
        self._server_name = server_name
        self._by_room: dict[int, _RoomTyping] = {}

    async def set_typing(
        self, user_id: str, room_id: str, typing: bool, timeout_ms: int = DEFAULT_TIMEOUT_MS
    ) -> None:
        """A local user starts (for a while) or stops typing.  ``M_FORBIDDEN`` for who is not joined."""
        room = await self._rooms.get(room_id)
        if membership_of(await self._states.member(room, user_id)) != "join":
            raise forbidden("You are not in this room")
        if self._set(room, user_id, typing, min(max(timeout_ms, 0), MAX_TIMEOUT_MS)) or typing:
            self._edus.send_typing(room, user_id, typing)

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.typing`` EDU; one that is not the origin's to send is passed over."""
        room_id, user_id, typing = (content.get(name) for name in ("room_id", "user_id", "typing"))
        if not isinstance(room_id, str) or not isinstance(user_id, str) or not isinstance(typing, bool):
            return
        if not is_user_id(user_id) or server_name_of(user_id) != origin:
            return
        room = await self._rooms.find(room_id)
        if room is None or not self._rooms.is_in(room):
            return
        if may_be_joined(room, await self._states.member(room, user_id)) and origin in room.servers:
            self._set(room, user_id, typing, _REMOTE_TIMEOUT_MS)

    def changed(self, room_nids: Collection[int], since: int) -> set[int]:
        """Those of the rooms whose typing users changed after an ephemeral position."""
        return {nid for nid, entry in self._by_room.items() if entry.pos > since and nid in room_nids}

    def now(self, room_nids: Set[int]) -> dict[int, list[str]]:
        """Who is typing in those of the rooms where somebody is."""
        return {
            nid: sorted(entry.until)
            for nid, entry in self._by_room.items()
            if entry.until and nid in room_nids
        }

    def changed_anywhere(self, since: int) -> list[int]:
        """The rooms, by number, whose typing users changed after an ephemeral position."""
        return [nid for nid, entry in self._by_room.items() if entry.pos > since]

    def users(self, room_nid: int) -> list[str]:
        """Who is typing in a room."""
        entry = self._by_room.get(room_nid)
        return sorted(entry.until) if entry else []

    def expire(self) -> None:
        """End the typing of those whose time is over.  To be called about once a second."""
        now = self._clock.monotonic()
        for nid, entry in self._by_room.items():
            over = [user_id for user_id, until in entry.until.items() if until <= now]
            for user_id in over:
                del entry.until[user_id]
            if over:
                self._changed(nid, entry)
        if len(self._by_room) > _MAX_ROOMS:
            self._by_room = {nid: entry for nid, entry in self._by_room.items() if entry.until}

    def _set(self, room: Room, user_id: str, typing: bool, timeout_ms: int) -> bool:
        """Whether anything changed that people are to be told of."""
        entry = self._by_room.get(room.nid)
        was_typing = entry is not None and user_id in entry.until
        if not typing and not was_typing:
            return False
        if entry is None:
            entry = self._by_room[room.nid] = _RoomTyping(0)
        if typing:
            if not was_typing and len(entry.until) >= _MAX_TYPING:
                return False
            entry.until[user_id] = self._clock.monotonic() + timeout_ms / 1000
        else:
            del entry.until[user_id]
        if typing != was_typing:
            self._changed(room.nid, entry)
            return True
        return False

    def _changed(self, room_nid: int, entry: _RoomTyping) -> None:
        entry.pos = self._positions.next()
        self._notifier.wake(rooms=(room_nid,))
