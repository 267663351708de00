"""Sliding sync, wired."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.core import Core
from homeserver.ephemeral import Ephemeral
from homeserver.reading import Reading
from homeserver.rooms.newest import NewestPositions
from homeserver.storage import rooms as room_storage
from homeserver.sync.sliding.connections import Connections
from homeserver.sync.sliding.extension import Extension
from homeserver.sync.sliding.listeners import Listeners
from homeserver.sync.sliding.room_facts import RoomFacts
from homeserver.sync.sliding.room_result import RoomResults
from homeserver.sync.sliding.sliding_sync import SlidingSync
from homeserver.sync.sliding.sticky_events import StickyEventsExtension
from homeserver.sync.sliding.user_rooms import Sources
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.timeline_window import TimelineWindows


def wire_sliding(
    core: Core, ephemeral: Ephemeral, reading: Reading, extensions: Sequence[Extension] = ()
) -> SlidingSync:
    """Sliding sync over what the other readers read, with its extensions."""
    return SlidingSync(
        rooms=core.rooms,
        memberships=reading.memberships,
        listeners=Listeners(_sources(core, reading), reading.watches, core.notifier, core.clock),
        connections=Connections(core.clock),
        results=RoomResults(
            db=core.db,
            events=core.events,
            visibility=reading.visibility,
            windows=TimelineWindows(core.db, reading.visibility),
            changes=StateChanges(core.keys, core.events, core.states),
            client_events=reading.client_events,
            unread=reading.unread,
        ),
        ignored=reading.ignored,
        receipts=ephemeral.receipts,
        presence=ephemeral.presence,
        notifier=core.notifier,
        ephemeral=ephemeral.positions,
        extensions=[*extensions, StickyEventsExtension(reading.sticky, core.rooms)],
    )


def _sources(core: Core, reading: Reading) -> Sources:
    newest = NewestPositions(
        core.notifier.position, lambda nids: room_storage.last_positions(core.db.scan, nids)
    )
    return Sources(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        facts=RoomFacts(core.db, core.keys, core.events, core.rooms),
        newest=newest,
        invite_permissions=reading.invite_permissions,
    )
