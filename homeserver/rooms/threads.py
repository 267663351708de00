"""Which thread an event belongs to.  Specification: client-server API, "Threading"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.protocol.events import Event
from homeserver.rooms.event_cache import EventCache

#: The thread id of everything that is in no thread.
MAIN = "main"

#: How many relations are followed from an event to one that names its thread.
_MAX_HOPS = 3


async def thread_of(events: EventCache, event: Event) -> str:
    """The id of the root of the thread an event is in, or ``MAIN``."""
    for hop in range(_MAX_HOPS + 1):
        relation = relation_of(event.content)
        if relation is None:
            return MAIN
        rel_type, parent_id = relation
        if rel_type == "m.thread":
            return parent_id
        parent = await events.by_id(parent_id) if hop < _MAX_HOPS else None
        if parent is None or parent.event.room_id != event.room_id:
            return MAIN
        event = parent.event
    return MAIN


def relation_of(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """``(rel_type, event_id)`` of what an event relates to, when it does and says so properly."""
    relation = content.get("m.relates_to")
    if not isinstance(relation, dict):
        return None
    rel_type, event_id = relation.get("rel_type"), relation.get("event_id")
    return (rel_type, event_id) if isinstance(rel_type, str) and isinstance(event_id, str) else None
