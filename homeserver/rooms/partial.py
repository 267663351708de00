"""Rooms joined with a part of their state: usable at once, while the rest is fetched.

The server that lets this one in leaves the members out of its answer.  Until
``rooms/completion.py`` has fetched the state before the join, a membership that the room
does not know may be any; an event is judged by the memberships it cites, and every
event taken in is noted, for all of them are decided again when the state is whole.
Whoever needs the whole state waits (``Rooms.whole``); nobody is shown a part for it.
Specification: server-server API, "Joining Rooms", ``omit_members``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from functools import partial

import msgspec

from homeserver.protocol.events import Event, StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.storage import partial_joins
from homeserver.storage.append import Also
from homeserver.storage.events import StoredEvent

_MEMBER = "m.room.member"


class Partial:
    """What is known of a join whose state is not whole; held by ``Room.partial``."""

    def __init__(self, join_nid: int, resident: str, received: int = 0) -> None:
        self.join_nid = join_nid
        #: The server that let this one in.
        self.resident = resident
        #: How many events have been taken in since, the join counted.
        self.received = received
        #: Set when the state is whole, or nobody is left to need it.
        self.over = asyncio.Event()

    def note(self, stored: StoredEvent, origin: str | None) -> Also:
        """Count an event in that is about to be stored: what its transaction has to add.

        ``origin`` is who can tell the state before it, where what it builds on is not here.
        """
        number, self.received = self.received, self.received + 1
        return partial(
            partial_joins.add_event,
            room_nid=stored.room_nid,
            number=number,
            event_nid=stored.nid,
            origin=origin,
        )


class PartialState(msgspec.Struct, frozen=True, gc=False):
    """What a ``send_join`` without members says beside the state."""

    #: The server that answered.
    resident: str
    #: Every server with members in the room, as far as the resident says.
    servers_in_room: tuple[str, ...]


def cited_members(auth: Iterable[StoredEvent]) -> dict[StateKey, Event]:
    """The memberships among an event's accepted auth events, to judge it by where the state has none."""
    return {
        stored.event.key: stored.event
        for stored in auth
        if stored.event.type == _MEMBER and stored.event.is_state and not stored.rejected
    }


async def members_cited_by(
    events: EventCache, by: Iterable[StoredEvent], user_ids: Collection[str]
) -> list[StoredEvent]:
    """The member events of users that events of theirs cite; of several the deepest."""
    nids = {nid for stored in by if stored.event.sender in user_ids for nid in stored.auth_nids}
    found: dict[str, StoredEvent] = {}
    for auth in (await events.by_nids(list(nids))).values():
        user_id = auth.event.state_key or ""
        if auth.event.type != _MEMBER or user_id not in user_ids or auth.rejected:
            continue
        if user_id not in found or found[user_id].event.depth < auth.event.depth:
            found[user_id] = auth
    return list(found.values())
