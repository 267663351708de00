"""Fetching what is missing: earlier events, auth chains, and the state before an event.

Everything asked for is bounded in number; what comes back is unchecked PDUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from homeserver.errors import RemoteError
from homeserver.protocol.events import Event
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import Room
from homeserver.storage.events import StoredEvent

#: How many events one gap is filled with before the state is asked for instead.
MAX_GAP_EVENTS = 50

#: Above this many events to fetch one by one, the whole state is asked for at once.
_MAX_SINGLE_EVENTS = 20
_PARALLEL = 8
MAX_STATE_EVENTS = 200_000

StoreOutliers: TypeAlias = Callable[[Room, Sequence[dict[str, Any]]], Awaitable[dict[str, StoredEvent]]]


class Gap(msgspec.Struct, frozen=True, gc=False):
    """What is known where the events before an event are not: the state, from its origin."""

    #: The ``prev_events`` that are not stored.
    unknown: tuple[str, ...]
    state: tuple[StoredEvent, ...]


class Missing:
    """Asks other servers for what is missing."""

    def __init__(self, remote: RemoteRooms, events: EventCache) -> None:
        self._remote = remote
        self._events = events

    async def events_before(self, origin: str, room: Room, event: Event) -> list[dict[str, Any]]:
        """PDUs between the room's extremities and an event, in the order they build on each other."""
        try:
            pdus = await self._remote.missing_events(
                origin, room.room_id, [tip.id for tip in room.tips], [event.event_id], MAX_GAP_EVENTS
            )
        except RemoteError:
            return []
        return sorted(pdus[:MAX_GAP_EVENTS], key=_depth)

    async def auth_chain(
        self, origin: str, room_id: str, event: Event, known: Collection[str]
    ) -> list[dict[str, Any]]:
        """PDUs of an event's auth chain, as far as they can be had."""
        try:
            return (await self._remote.event_auth(origin, room_id, event.event_id))[:MAX_STATE_EVENTS]
        except RemoteError:
            wanted = [event_id for event_id in event.auth_events if event_id not in known]
            return await self._one_by_one(origin, wanted)

    async def state_before(
        self, origin: str, room: Room, event: Event, store: StoreOutliers
    ) -> tuple[StoredEvent, ...]:
        """The state before an event as its origin knows it, stored as outliers.

        Raises ``RemoteError`` when the origin does not say, or says something impossible.
        """
        state_ids, auth_ids = await self._remote.state_ids(origin, room.room_id, event.event_id)
        if len(state_ids) + len(auth_ids) > MAX_STATE_EVENTS:
            raise RemoteError(origin, "too much state", reachable=True, transient=False)
        known = await self._events.by_ids([*state_ids, *auth_ids])
        unknown = [event_id for event_id in (*auth_ids, *state_ids) if event_id not in known]
        if len(unknown) > _MAX_SINGLE_EVENTS:
            state, auth_chain = await self._remote.state(origin, room.room_id, event.event_id)
            await store(room, [*auth_chain, *state])
        elif unknown:
            await store(room, await self._one_by_one(origin, unknown))
        known = await self._events.by_ids(state_ids)
        return _one_per_key(origin, room, known)

    async def _one_by_one(self, origin: str, event_ids: Sequence[str]) -> list[dict[str, Any]]:
        free = asyncio.Semaphore(_PARALLEL)

        async def fetch(event_id: str) -> dict[str, Any] | None:
            async with free:
                try:
                    return await self._remote.event(origin, event_id)
                except RemoteError:
                    return None

        pdus = await asyncio.gather(*(fetch(event_id) for event_id in event_ids[:_MAX_SINGLE_EVENTS]))
        return [pdu for pdu in pdus if pdu is not None]


def _one_per_key(origin: str, room: Room, state: Mapping[str, StoredEvent]) -> tuple[StoredEvent, ...]:
    by_key: dict[int, StoredEvent] = {}
    for stored in state.values():
        if stored.rejected or stored.room_nid != room.nid:
            continue
        if stored.key_nid is None or by_key.setdefault(stored.key_nid, stored) is not stored:
            raise RemoteError(origin, "its state is no state", reachable=True, transient=False)
    if not any(stored.event.type == "m.room.create" for stored in by_key.values()):
        raise RemoteError(origin, "its state has no create event", reachable=True, transient=False)
    return tuple(by_key.values())


def _depth(pdu: object) -> int:
    depth = pdu.get("depth") if isinstance(pdu, dict) else None
    return depth if isinstance(depth, int) else 0
