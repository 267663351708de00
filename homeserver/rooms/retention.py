"""Which messages are over: nobody is shown them any more, and they are purged when their turn comes.

State is never over.  ``rooms/expiry.py`` purges; this module only says of what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.clock import Clock
from homeserver.protocol.retention import RETENTION, Lifetimes, max_lifetime
from homeserver.rooms.room import Room
from homeserver.storage.events import StoredEvent


class Retention:
    """A server's policy; ``lifetimes`` is ``None`` where events are kept for ever."""

    def __init__(self, clock: Clock, lifetimes: Lifetimes | None) -> None:
        self._clock = clock
        self._lifetimes = lifetimes

    @property
    def enabled(self) -> bool:
        """Whether anything is ever over."""
        return self._lifetimes is not None

    def expired_before(self, room: Room) -> int | None:
        """The time (milliseconds) before which a room's messages are over; ``None``: they never are."""
        if self._lifetimes is None:
            return None
        event = room.state_event(*RETENTION)
        return self.time_before(event.content if event else None)

    def time_before(self, content: Mapping[str, Any] | None) -> int | None:
        """The same by the content of the room's ``m.room.retention`` event."""
        if self._lifetimes is None:
            return None
        lifetime = max_lifetime(content, self._lifetimes)
        return None if lifetime is None else self._clock.now_ms() - lifetime

    def is_over(self, room: Room, stored: StoredEvent) -> bool:
        """Whether an event is not to be shown any more: purged, or to be purged."""
        return stored.purged or is_expired(stored, self.expired_before(room))


def is_expired(stored: StoredEvent, before: int | None) -> bool:
    """Whether an event is a message from before a time (``Retention.expired_before``)."""
    return before is not None and stored.event.state_key is None and stored.event.origin_server_ts < before
