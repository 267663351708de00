"""How many one-time keys each device has left, at hand for every sync."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from homeserver.protocol.e2e_keys import SIGNED_CURVE25519
from homeserver.storage import e2e_keys
from homeserver.storage.database import Database

_REMEMBERED_DEVICES = 10_000


class Counts(msgspec.Struct, frozen=True, gc=False):
    """What a device is told of its keys."""

    #: By algorithm.
    one_time_keys: dict[str, int]
    unused_fallback_types: list[str]


class KeyCounts:
    """Counts keys, and remembers the result until it changes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[tuple[str, str], Counts] = OrderedDict()
        self._reading: dict[tuple[str, str], object] = {}
        #: Told of devices whose keys changed.
        self.listeners: list[Callable[[str, str], None]] = []

    async def of(self, user_id: str, device_id: str | None) -> Counts:
        """The keys a device has left; none for tokens that belong to no device."""
        if device_id is None:
            return Counts({}, [])
        device = (user_id, device_id)
        known = self._known.get(device)
        if known is not None:
            self._known.move_to_end(device)
            return known
        mark = self._reading[device] = object()
        # COMPAT: some clients take an algorithm that is left out for one there is no news of.
        left = {SIGNED_CURVE25519: 0, **await e2e_keys.counts(self._db.read, user_id, device_id)}
        fallback = await e2e_keys.fallback_keys(self._db.read, user_id, device_id)
        counts = Counts(left, sorted(algorithm for algorithm, (_, used) in fallback.items() if not used))
        if self._reading.get(device) is mark:  # nothing changed while it was read
            del self._reading[device]
            self._known[device] = counts
            if len(self._known) > _REMEMBERED_DEVICES:
                self._known.popitem(last=False)
        return counts

    def forget(self, devices: Iterable[tuple[str, str]]) -> None:
        """The keys of these devices changed."""
        for device in devices:
            self._known.pop(device, None)
            self._reading.pop(device, None)
            for listener in self.listeners:
                listener(*device)
