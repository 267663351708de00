"""A pusher at work: what waits for it, how far it is, and when it may be tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import orjson

from homeserver.storage.pushers import Pusher

#: A pusher that has failed for so long gives up what waits for it.
GIVE_UP_MS: Final = 24 * 3600 * 1000

_FIRST_PAUSE_MS: Final = 2_000
_LONGEST_PAUSE_MS: Final = 3600 * 1000


class Work(msgspec.Struct, frozen=True, gc=False):
    """What there is to look at for a pusher."""

    rooms: frozenset[int]
    #: Invites may have come.
    invites: bool
    #: How many events are unread is to be told for its own sake.
    badge: bool


class Line:
    """One pusher; ``pos`` is up to where everything has been pushed."""

    def __init__(self, pusher: Pusher, pos: int) -> None:
        self.pusher = pusher
        self.data: dict[str, Any] = orjson.loads(pusher.data)
        self.pos = pos
        #: Rooms with events after ``pos`` that have not been looked at.
        self.rooms: set[int] = set()
        self.invites = False
        #: When the number of unread events is due to be told (ms), if it is.
        self.badge_at: int | None = None
        #: The number that was told last, if any was.
        self.told: int | None = None
        #: When what waits may be looked at again (ms).
        self.again_at = 0
        self.failures = 0
        self.failing_since = pusher.failing_since
        #: What is stored says that something waits.
        self.stored_behind = pusher.behind
        self.worker: asyncio.Task[None] | None = None
        #: The pusher was removed or replaced.
        self.gone = False

    @property
    def is_waiting(self) -> bool:
        """Whether there is, or may be, something to push."""
        return bool(self.rooms) or self.invites

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do, now or later, and what is stored says so."""
        if self.gone:
            return self.worker is None
        nothing = not self.is_waiting and self.badge_at is None
        return nothing and self.worker is None and not self.stored_behind

    def add(self, rooms: Iterable[int] = (), *, invites: bool = False) -> None:
        """There may be something in these rooms."""
        self.rooms.update(rooms)
        self.invites = self.invites or invites
        if not self.failures:
            self.again_at = 0

    def is_due(self, now_ms: int) -> bool:
        """Whether to set to work."""
        if self.gone or now_ms < self.again_at:
            return False
        return self.is_waiting or (self.badge_at is not None and self.badge_at <= now_ms)

    def take(self, now_ms: int) -> Work:
        """What there is to do, which is taken to be done from now on."""
        badge = self.badge_at is not None and self.badge_at <= now_ms
        work = Work(frozenset(self.rooms), self.invites, badge)
        self.rooms, self.invites = set(), False
        if badge:
            self.badge_at = None
        return work

    def put_back(self, work: Work, again_at: int) -> None:
        """What was taken is still to be done, at ``again_at`` (ms) or when there is more."""
        self.rooms |= work.rooms
        self.invites = self.invites or work.invites
        if work.badge and self.badge_at is None:
            self.badge_at = again_at
        self.again_at = again_at

    def worked(self) -> None:
        """A push arrived."""
        self.failures = 0
        self.failing_since = 0

    def failed(self, now_ms: int, chance: float) -> int:
        """A push did not arrive; when to try again (ms).  ``chance`` from 0 to 1 spreads the attempts."""
        self.failing_since = self.failing_since or now_ms
        pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS << min(self.failures, 20))
        self.failures += 1
        return now_ms + round(pause * (0.8 + 0.4 * chance))

    def gives_up(self, now_ms: int) -> bool:
        """Whether it has failed for too long to keep what waits."""
        return bool(self.failing_since) and now_ms - self.failing_since >= GIVE_UP_MS
