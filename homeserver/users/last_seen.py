"""When, and from where, devices were last in use.

Every request is noted in memory, which costs nothing worth mentioning; what is new is
written now and then, all at once.  A crash loses a minute of it.
"""

from __future__ import annotations

from functools import partial

from homeserver.clock import Clock
from homeserver.storage import last_seen as storage
from homeserver.storage.database import Database
from homeserver.storage.last_seen import Use
from homeserver.users.requester import Requester

#: Noted between two writes: more devices than that are only remembered until others come.
_MAX_DEVICES = 50_000
#: So that other writes need not wait for all of them.
_WRITTEN_AT_ONCE = 1_000
_MAX_IP_CHARS = 64
_MAX_USER_AGENT_CHARS = 256


class LastSeen:
    """Remembers the last use of each device."""

    def __init__(self, db: Database, clock: Clock, *, max_devices: int = _MAX_DEVICES) -> None:
        self._db = db
        self._clock = clock
        self._max_devices = max_devices
        #: Not stored yet, by user and device.
        self._fresh: dict[tuple[str, str], Use] = {}
        #: On their way to the disk.
        self._leaving: dict[tuple[str, str], Use] = {}

    def note(self, requester: Requester, ip: str, user_agent: str | None) -> None:
        """A device makes a request; called for every one, so it must stay cheap."""
        if requester.device_id is None:
            return
        if len(self._fresh) >= self._max_devices:
            self._fresh.pop(next(iter(self._fresh)))
        self._fresh[requester.user_id, requester.device_id] = Use(self._clock.now_ms(), ip, user_agent)

    async def of(self, user_id: str) -> dict[str, Use]:
        """The last use of each of a user's devices, by device id."""
        stored = await storage.uses(self._db.read, user_id)
        fresh = ((device_id, self._unstored(user_id, device_id)) for device_id in stored)
        return stored | {device_id: _clean(use) for device_id, use in fresh if use is not None}

    async def write(self) -> None:
        """Store what is new."""
        if not self._fresh:
            return
        self._leaving, self._fresh = self._fresh, {}
        seen = [(user_id, device_id, _clean(use)) for (user_id, device_id), use in self._leaving.items()]
        try:
            for start in range(0, len(seen), _WRITTEN_AT_ONCE):
                await self._db.write(partial(storage.store, seen=seen[start : start + _WRITTEN_AT_ONCE]))
        finally:
            self._leaving = {}

    def _unstored(self, user_id: str, device_id: str) -> Use | None:
        key = user_id, device_id
        return self._fresh.get(key) or self._leaving.get(key)


def _clean(use: Use) -> Use:
    """The same as text that can be stored: both come from the request's head, where anything may stand."""
    return Use(use.at, _text(use.ip, _MAX_IP_CHARS), _text(use.user_agent, _MAX_USER_AGENT_CHARS))


def _text(value: str | None, longest: int) -> str | None:
    if value is None:
        return None
    return value[:longest].encode("utf-8", "replace").decode().replace("\x00", "")
