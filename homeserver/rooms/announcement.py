"""What the write path says once events are on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import msgspec

from homeserver.rooms.room import Room
from homeserver.storage.events import StoredEvent


class NewEvents(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Events that were just stored; every position up to ``pos`` is on disk."""

    pos: int
    room: Room
    #: Those that belong into the room's timeline, oldest first.
    events: tuple[StoredEvent, ...]
    #: Local users whose membership of the room changed.
    users: frozenset[str]


#: Called on the event loop after each commit; must return at once.
Announce: TypeAlias = Callable[[NewEvents], None]


class AnnounceMemberships(Protocol):
    """Says that what these local users have to do with a room changed at a position; it is on disk."""

    def __call__(self, pos: int, *, room_nid: int, users: Iterable[str]) -> None: ...
