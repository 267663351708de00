"""Finding rooms and events, wired: published rooms, spaces, summaries, events by their time."""

from __future__ import annotations

from typing import Protocol

import msgspec

from homeserver.core import Core
from homeserver.reading import Reading
from homeserver.rooms.accessible import Accessible
from homeserver.rooms.hierarchy import Hierarchy
from homeserver.rooms.moments import Moments, RemoteHistory
from homeserver.rooms.published import PublishedRooms, RemoteLists
from homeserver.rooms.remote_spaces import RemoteHierarchies, RemoteSpaces
from homeserver.rooms.summaries import RoomSummaries


class Others(RemoteLists, RemoteHierarchies, Protocol):
    """What other servers are asked."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What finds rooms and events."""

    published: PublishedRooms
    hierarchy: Hierarchy
    moments: Moments


def wire_finding(core: Core, reading: Reading, others: Others, history: RemoteHistory) -> Finding:
    """Wire the finders; ``others`` and ``history`` are what other servers have."""
    summaries = RoomSummaries(core.db, core.keys, core.events, core.server_name)
    return Finding(
        published=PublishedRooms(core.db, summaries, others, core.server_name),
        hierarchy=Hierarchy(
            db=core.db,
            rooms=core.rooms,
            summaries=summaries,
            accessible=Accessible(core.db, core.server_name),
            remote=RemoteSpaces(others, core.clock, core.server_name),
            clock=core.clock,
        ),
        moments=Moments(
            db=core.db,
            events=core.events,
            history=reading.history,
            visibility=reading.visibility,
            remote=history,
        ),
    )
