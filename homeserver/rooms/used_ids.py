"""Which transaction ids devices have used, in memory: a new one is known to be new without a query.

Nearly every request is the first of its transaction.  Of each device that sends, what the database
holds of it is looked up once and kept, as eight bytes an id; whoever is told that an id may have been
used asks the database for what it led to.  The rule: **what is not here was not stored**.  It relies on
this process being the only one that answers a device; what is here and was never stored costs a query.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict
from typing import TypeAlias

from homeserver.storage import transaction_ids
from homeserver.storage.database import Database

#: ``(user_id, device_id)``.
Device: TypeAlias = tuple[str, str]

#: A device with more in the database has it asked each time.
MOST_LOOKED_UP = 5_000
#: One that comes to more is looked up anew: what is older than a day is not kept there any more.
MOST_OF_DEVICE = 10_000
#: Of all devices, 4 MB; those that have not sent for longest are let go.
MOST = 500_000
#: What a device itself takes, as ids.
_OF_EACH_DEVICE = 64


class UsedIds:
    """The transaction ids that were used, by device."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._devices: OrderedDict[Device, _Used] = OrderedDict()
        self._held = 0

    async def may_be_used(self, user_id: str, device_id: str, scope: str, txn_id: str) -> bool:
        """Whether an id may have led to something; ``False`` is for certain."""
        device = (user_id, device_id)
        used = self._devices.get(device)
        if used is None:
            used = await self._look_up(device)
        else:
            self._devices.move_to_end(device)
        return not used.is_all or hash((scope, txn_id)) in used

    def note(self, user_id: str, device_id: str, scope: str, txn_id: str) -> None:
        """An id was used, and what it led to is on disk if it led to anything.

        Until it is, callers have to know of the request by themselves.
        """
        device = (user_id, device_id)
        used = self._devices.get(device)
        if used is None or used.too_many:
            return
        insort(used.hashes, hash((scope, txn_id)))
        self._held += 1
        if len(used.hashes) > MOST_OF_DEVICE:
            self._forget(device)
        self._let_go()

    async def _look_up(self, device: Device) -> _Used:
        """What the database holds, and what is noted while it is being read."""
        used = self._devices[device] = _Used()
        self._held += _OF_EACH_DEVICE
        try:
            stored = await transaction_ids.of_device(self._db.scan, *device, limit=MOST_LOOKED_UP + 1)
        except BaseException:
            if self._devices.get(device) is used:
                self._forget(device)
            raise
        if self._devices.get(device) is not used:
            return used  # let go of meanwhile, and so not told of everything
        self._held -= len(used.hashes)
        used.too_many = len(stored) > MOST_LOOKED_UP
        found = [] if used.too_many else [*used.hashes, *(hash(one) for one in stored)]
        used.hashes, used.is_all = array("q", sorted(found)), not used.too_many
        self._held += len(used.hashes)
        self._let_go()
        return used

    def _forget(self, device: Device) -> None:
        self._held -= len(self._devices.pop(device).hashes) + _OF_EACH_DEVICE

    def _let_go(self) -> None:
        while self._held > MOST:
            self._forget(next(iter(self._devices)))


class _Used:
    """What one device has used."""

    __slots__ = ("hashes", "is_all", "too_many")

    def __init__(self) -> None:
        #: Ascending.
        self.hashes = array("q")
        #: Whether it has used no others.
        self.is_all = False
        self.too_many = False

    def __contains__(self, wanted: int) -> bool:
        index = bisect_left(self.hashes, wanted)
        return index < len(self.hashes) and self.hashes[index] == wanted
