"""What redactions do to events, in whichever order the two come.

Specification: room versions since v3, "Handling redactions".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_of
from homeserver.protocol.redaction import redact
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, SENT_HERE, StoredEvent


class Redactions:
    """Finds what a redaction empties, and what has emptied an event before it came."""

    def __init__(self, db: Database, events: EventCache) -> None:
        self._db = db
        self._events = events

    async def target(
        self, room: Room, event: Event, among: Mapping[str, StoredEvent] | None = None
    ) -> tuple[StoredEvent | None, bool]:
        """The event a redaction may empty, and whether that is still to come.

        ``among`` are events that are about to be stored.
        """
        if event.type != "m.room.redaction" or event.redacts is None:
            return None, False
        target = (among or {}).get(event.redacts)
        target = target or next((recent for recent in room.recent if recent.id == event.redacts), None)
        if target is None:
            await room.settle()
            target = await self._events.by_id(event.redacts)
        if target is None:
            return None, True
        if target.room_nid != room.nid or target.event.type == "m.room.redaction" or target.purged:
            return None, False
        return (target if _may_redact(room, event, target.event) else None), False

    async def early(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that redactions came before."""
        return await event_storage.redacted_early(self._db.read, event_ids)

    async def pending(self, room: Room, stored: StoredEvent) -> int | None:
        """The first redaction that came before the event and was entitled to."""
        if stored.flags & (SENT_HERE | REDACTED):
            return None
        nids = await event_storage.pending_redactions_of(self._db.read, stored.id)
        redactions = await self._events.by_nids(nids)
        for nid in nids:
            redaction = redactions[nid]
            if redaction.room_nid == room.nid and _may_redact(room, redaction.event, stored.event):
                return nid
        return None


def emptied(room: Room, target: StoredEvent, redaction_nid: int) -> StoredEvent:
    """An event after its redaction."""
    event = parse_event(redact(target.event.pdu, room.rules), room.rules, event_id=target.id)
    if target.rejected:
        event = msgspec.structs.replace(event, rejected=True)
    return msgspec.structs.replace(
        target, event=event, flags=target.flags | REDACTED, redacted_by=redaction_nid
    )


def _may_redact(room: Room, redaction: Event, target: Event) -> bool:
    levels = room.power_levels
    return (
        server_of(target.sender) == server_of(redaction.sender)
        or levels.of_user(redaction.sender) >= levels.redact
    )
