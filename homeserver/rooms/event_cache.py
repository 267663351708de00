"""Events read once and shared: a bounded memory over ``storage/events.py``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from homeserver.storage import events
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

#: Bytes of memory the events may take.
EVENT_BYTES: Final = 24 * 1024 * 1024
#: What an event takes beside its JSON, in bytes: its fields, ids, references and places in the dicts.
_BESIDE_JSON: Final = 1_350
#: Of this many parts one is let go at a time, so that it is seldom done and never takes long.
_PARTS: Final = 16

#: Reads of more events than this go where they do not hold up the event loop.
_BOUNDED = 50


class EventCache:
    """Events by number and by id; beyond ``capacity`` bytes those that were read first go first."""

    def __init__(self, db: Database, capacity: int = EVENT_BYTES) -> None:
        self._db = db
        self._capacity = capacity
        self._bytes = 0
        self._by_nid: dict[int, StoredEvent] = {}
        self._nids: dict[str, int] = {}

    async def by_id(self, event_id: str) -> StoredEvent | None:
        """One event, or ``None`` when it is not stored."""
        nid = self._nids.get(event_id)
        if nid is not None:
            return self._by_nid[nid]
        stored = await events.by_id(self._db.read, event_id)
        return self._keep(stored) if stored is not None else None

    async def by_ids(self, event_ids: Sequence[str]) -> dict[str, StoredEvent]:
        """Those of the events that are stored."""
        found, unknown = {}, []
        for event_id in event_ids:
            nid = self._nids.get(event_id)
            if nid is None:
                unknown.append(event_id)
            else:
                found[event_id] = self._by_nid[nid]
        if unknown:
            reader = self._db.read if len(unknown) <= _BOUNDED else self._db.scan
            for event_id, stored in (await events.by_ids(reader, unknown)).items():
                found[event_id] = self._keep(stored)
        return found

    async def by_nids(self, nids: Sequence[int]) -> dict[int, StoredEvent]:
        """Events by number."""
        found, unknown = {}, []
        for nid in nids:
            stored = self._by_nid.get(nid)
            if stored is None:
                unknown.append(nid)
            else:
                found[nid] = stored
        if unknown:
            reader = self._db.read if len(unknown) <= _BOUNDED else self._db.scan
            for nid, stored in (await events.by_nids(reader, unknown)).items():
                found[nid] = self._keep(stored)
        return found

    def _keep(self, read: StoredEvent) -> StoredEvent:
        """Remember an event that was read, unless a newer form of it was stored meanwhile."""
        known = self._by_nid.get(read.nid)
        if known is None:
            self.put(read)
        return known or read

    def put(self, stored: StoredEvent) -> None:
        """Remember an event that is on disk, or its newer form."""
        before = self._by_nid.get(stored.nid)
        self._bytes += _bytes_of(stored) - (_bytes_of(before) if before is not None else 0)
        self._by_nid[stored.nid] = stored
        self._nids[stored.id] = stored.nid
        if self._bytes > self._capacity:
            self._let_go()

    def _let_go(self) -> None:
        part = max(1, len(self._by_nid) // _PARTS)
        while self._bytes > self._capacity:
            for nid in list(islice(self._by_nid, part)):
                gone = self._by_nid.pop(nid)
                del self._nids[gone.id]
                self._bytes -= _bytes_of(gone)


def _bytes_of(stored: StoredEvent) -> int:
    return len(stored.event.json) + _BESIDE_JSON
