"""Which devices sent the newest events, and by which transactions: telling them back reads nothing.

The rule: **what is not here of an event after ``complete_after`` was sent by no transaction**.  It is
noted before the event is written; that of an event that never was is forgotten with the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeserver.storage.events import StoredEvent
from homeserver.storage.numbers import Sequence

#: Of one generation: half a megabyte of both.
KEPT = 1_000


class RecentTransactions:
    """The transactions of the newest events, in two generations of which the older is let go whole."""

    def __init__(self, positions: Sequence) -> None:
        self._positions = positions
        #: By event id: a device and its transaction id.
        self._older: dict[str, tuple[str, str]] = {}
        self._newer: dict[str, tuple[str, str]] = {}
        self._newer_after = positions.last
        #: Of events at or before this position not everything is here.
        self.complete_after = positions.last

    def note(self, event_id: str, device_id: str, txn_id: str) -> None:
        """A device sends an event, which is given its position after this."""
        if len(self._newer) >= KEPT:
            self._older, self.complete_after = self._newer, self._newer_after
            self._newer, self._newer_after = {}, self._positions.last
        self._newer[event_id] = (device_id, txn_id)

    def of(self, events: Iterable[StoredEvent], device_id: str) -> dict[int, str] | None:
        """The transaction ids by which a device sent some of the events, by ``event_nid``.

        ``None`` where the database has to be asked.
        """
        found = {}
        for stored in events:
            if stored.pos is None or stored.pos <= self.complete_after:
                return None
            sent = self._newer.get(stored.id) or self._older.get(stored.id)
            if sent is not None and sent[0] == device_id:
                found[stored.nid] = sent[1]
        return found
