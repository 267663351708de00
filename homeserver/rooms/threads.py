"""Which thread an event belongs to.  Specification: client-server API, "Threading"."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.protocol.events import Event
from homeserver.protocol.relations import THREAD, relation_in
from homeserver.rooms.event_cache import EventCache

#: The thread id of everything that is in no thread.
MAIN = "main"

#: How many relations are followed from an event to one that names its thread.
_MAX_HOPS = 3


async def thread_of(events: EventCache, event: Event) -> str:
    """The id of the root of the thread an event is in, or ``MAIN``."""
    return (await threads_of(events, [event]))[event.event_id]


async def threads_of(events: EventCache, asked: Sequence[Event]) -> dict[str, str]:
    """The same for several events, by event id: with one look at the parents of all for each hop."""
    threads = {event.event_id: MAIN for event in asked}
    #: What is still followed: the event a chain has come to, by the event it began with.
    followed = {event.event_id: event for event in asked}
    for hop in range(_MAX_HOPS + 1):
        parents: dict[str, str] = {}
        for start, event in followed.items():
            relation = relation_in(event)
            if relation is not None and relation.rel_type == THREAD:
                threads[start] = relation.parent_id
            elif relation is not None:
                parents[start] = relation.parent_id
        if not parents or hop == _MAX_HOPS:
            break
        found = await events.by_ids(list(dict.fromkeys(parents.values())))
        followed = {
            start: found[parent_id].event
            for start, parent_id in parents.items()
            if parent_id in found and found[parent_id].event.room_id == followed[start].room_id
        }
    return threads
