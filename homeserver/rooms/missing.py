"""Fetching what is missing: earlier events, auth chains, and the state before an event.

The server an event came from is asked first, then others in the room.  Everything asked
for is bounded in number; what comes back is unchecked PDUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import structlog

from homeserver.errors import RemoteError
from homeserver.protocol.auth_rules import auth_types_of
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.signing import event_id_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import Difference, differences
from homeserver.storage.events import StoredEvent
from homeserver.storage.state import NO_EVENT

_log = structlog.get_logger()

#: How many events one gap is filled with before the state is asked for instead; how many at once.
MAX_GAP_EVENTS = 100
_GAP_PAGE = 50
#: How many servers are asked for one thing.
_MAX_SERVERS = 3
#: So many events of a state are fetched one by one, or up to this part of it; of more the whole state is.
_MAX_SINGLE_EVENTS = 50
_SINGLE_PART, _MAX_SINGLE_PART = 10, 1000
_PARALLEL = 8
#: How many steps down an auth chain is fetched one by one.
_MAX_AUTH_STEPS = 10
MAX_STATE_EVENTS = 200_000
#: One event in so many may be lacking in a state, as those are whose server is gone with its keys.
_TOLERATED = 20

StoreOutliers: TypeAlias = Callable[[Room, Sequence[dict[str, Any]]], Awaitable[dict[str, StoredEvent]]]

#: The state without which nothing can be judged.
VITAL: tuple[StateKey, ...] = (
    ("m.room.create", ""),
    ("m.room.power_levels", ""),
    ("m.room.join_rules", ""),
)


class ClaimedState(msgspec.Struct, frozen=True, gc=False):
    """The state before an event as another server says it is."""

    events: tuple[StoredEvent, ...]
    #: Whether nothing of it is lacking.
    whole: bool

    def difference(self, current: Mapping[int, int]) -> Difference:
        """What has to change in the room's current state to get this one.

        What is lacking cannot be told from what was never there, so that where anything is,
        what it does not have stays as it is.
        """
        claimed = {stored.key_nid: stored.nid for stored in self.events if stored.key_nid is not None}
        found = differences(claimed, current)
        return found if self.whole else {key: nid for key, nid in found.items() if nid != NO_EVENT}


class Gap(msgspec.Struct, frozen=True, gc=False):
    """What is known where the events before an event are not: the state, from another server."""

    #: The ``prev_events`` that are not stored.
    unknown: tuple[str, ...]
    #: ``None`` where nobody was asked, for the room's own state is not whole: it is asked for later.
    state: ClaimedState | None


class Missing:
    """Asks other servers for what is missing."""

    def __init__(self, remote: RemoteRooms, events: EventCache, server_name: str) -> None:
        self._remote = remote
        self._events = events
        self._server_name = server_name

    def servers(self, origin: str, room: Room) -> list[str]:
        """Whom to ask, one after the other: ``origin``, then those with the most members."""
        others = sorted(room.servers, key=lambda server: (-room.servers[server], server))
        known = [server for server in others if server not in {origin, self._server_name}]
        return [origin, *known][:_MAX_SERVERS]

    async def events_before(self, server: str, room: Room, latest: Sequence[str]) -> list[dict[str, Any]]:
        """PDUs between the room's extremities and some events, in the order they build on each other.

        None where the server gives none.
        """
        oldest = [*room.tips, *list(room.recent)[:1]]
        try:
            pdus = await self._remote.missing_events(
                server,
                room.room_id,
                [tip.id for tip in room.tips],
                latest,
                _GAP_PAGE,
                min_depth=min((stored.event.depth for stored in oldest), default=0),
            )
        except RemoteError as error:
            _log.debug("missing events not given", server=server, reason=error.message)
            return []
        return sorted(pdus[:_GAP_PAGE], key=_depth)

    async def auth_chain(
        self, server: str, room_id: str, event: Event, known: Collection[str]
    ) -> list[dict[str, Any]]:
        """PDUs of an event's auth chain, as far as they can be had."""
        try:
            return (await self._remote.event_auth(server, room_id, event.event_id))[:MAX_STATE_EVENTS]
        except RemoteError:
            return await self._down_from(
                server, [event_id for event_id in event.auth_events if event_id not in known]
            )

    async def _down_from(self, server: str, event_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Events and what of their auth chains is not stored, fetched one by one."""
        asked: set[str] = set()
        found: list[dict[str, Any]] = []
        wanted = list(event_ids)
        for _ in range(_MAX_AUTH_STEPS):
            pdus = await self._one_by_one(server, wanted, _MAX_SINGLE_EVENTS)
            asked.update(wanted)
            found += pdus
            cited = {auth for pdu in pdus for auth in _auth_events(pdu)} - asked
            wanted = sorted(cited - (await self._events.by_ids(sorted(cited))).keys())
            if not wanted:
                break
        return found

    async def state_before(self, origin: str, room: Room, event: Event, store: StoreOutliers) -> ClaimedState:
        """The state before an event as the first server that can say so knows it, stored as outliers.

        Raises ``RemoteError`` when none says, or all say something impossible.
        """
        failure: RemoteError | None = None
        for server in self.servers(origin, room):
            try:
                return await self._state_from(server, room, event, store)
            except RemoteError as error:
                _log.debug("state not given", server=server, event_id=event.event_id, reason=error.message)
                failure = failure or error
        raise failure or RemoteError(origin, "nobody to ask", reachable=False, transient=True)

    async def _state_from(self, server: str, room: Room, event: Event, store: StoreOutliers) -> ClaimedState:
        """The state before an event as one server knows it, without what was rejected here.

        A few events may be lacking, but for what the room stands on and for what the event
        itself is judged by.
        """
        state = await self.state_at(server, room, event.event_id, store)
        by_key = _one_per_key(server, room, state.events)
        if not state.whole:
            cited = (await self._events.by_ids(event.auth_events)).values()
            held = {*room.state, *(stored.event.key for stored in cited if stored.event.is_state)}
            needed = {*VITAL, *auth_types_of(room.rules, event)} & held
            if needed - {stored.event.key for stored in by_key.values()}:
                raise RemoteError(server, "vital state cannot be had", reachable=True, transient=True)
            _log.warning("state is incomplete", server=server, room_id=room.room_id)
        return ClaimedState(tuple(by_key.values()), state.whole)

    async def state_at(self, server: str, room: Room, event_id: str, store: StoreOutliers) -> ClaimedState:
        """All that one server says is in the state before an event, as far as it could be had or judged.

        Raises ``RemoteError`` where more than a few events are lacking.
        """
        state_ids, auth_ids = await self._state_ids(server, room, event_id, store)
        wanted = list(dict.fromkeys((*auth_ids, *state_ids)))
        if len(wanted) > MAX_STATE_EVENTS:
            raise RemoteError(server, "too much state", reachable=True, transient=False)
        unknown = await self._unknown(wanted)
        if len(unknown) > _few_of(wanted):
            state, chain = await self._remote.state(server, room.room_id, event_id)
            await store(room, [*chain, *state])
            unknown = await self._unknown(unknown)
        if unknown:
            await store(room, await self._one_by_one(server, unknown, _few_of(wanted)))
        known = await self._events.by_ids(state_ids)
        lacking = len(set(state_ids)) - len(known)
        if lacking > max(1, len(state_ids) // _TOLERATED):
            raise RemoteError(
                server, f"{lacking} events of its state cannot be had", reachable=True, transient=True
            )
        return ClaimedState(tuple(known.values()), whole=not lacking)

    async def _state_ids(
        self, server: str, room: Room, event_id: str, store: StoreOutliers
    ) -> tuple[list[str], list[str]]:
        """Ids of the state and of its auth chain, from ``/state`` where that is all a server knows."""
        try:
            return await self._remote.state_ids(server, room.room_id, event_id)
        except RemoteError as error:
            if error.errcode != "M_UNRECOGNIZED":
                raise
        state, chain = await self._remote.state(server, room.room_id, event_id)
        await store(room, [*chain, *state])
        try:
            return [event_id_of(pdu, room.rules) for pdu in state], []
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteError(
                server, "its state holds what is no event", reachable=True, transient=False
            ) from error

    async def _unknown(self, event_ids: Sequence[str]) -> list[str]:
        known = await self._events.by_ids(event_ids)
        return [event_id for event_id in event_ids if event_id not in known]

    async def _one_by_one(self, server: str, event_ids: Sequence[str], limit: int) -> list[dict[str, Any]]:
        free = asyncio.Semaphore(_PARALLEL)

        async def fetch(event_id: str) -> dict[str, Any] | None:
            async with free:
                try:
                    return await self._remote.event(server, event_id)
                except RemoteError:
                    return None

        pdus = await asyncio.gather(*(fetch(event_id) for event_id in event_ids[:limit]))
        return [pdu for pdu in pdus if pdu is not None]


def _few_of(event_ids: Collection[str]) -> int:
    """How many of these are worth fetching one by one."""
    return max(_MAX_SINGLE_EVENTS, min(len(event_ids) // _SINGLE_PART, _MAX_SINGLE_PART))


def _one_per_key(server: str, room: Room, state: Iterable[StoredEvent]) -> dict[int, StoredEvent]:
    by_key: dict[int, StoredEvent] = {}
    for stored in state:
        if stored.rejected or stored.room_nid != room.nid:
            continue
        if stored.key_nid is None or by_key.setdefault(stored.key_nid, stored) is not stored:
            raise RemoteError(server, "its state is no state", reachable=True, transient=False)
    create = room.create.key_nid
    if create is None or create not in by_key or by_key[create].id != room.create.id:
        raise RemoteError(server, "its state has no create event", reachable=True, transient=False)
    return by_key


def _auth_events(pdu: Mapping[str, Any]) -> Iterator[str]:
    """The ids of the auth events of an unchecked PDU, as far as they are ids."""
    entries = pdu.get("auth_events")
    for entry in entries if isinstance(entries, list) else ():
        event_id = entry[0] if isinstance(entry, list) and entry else entry
        if isinstance(event_id, str):
            yield event_id


def _depth(pdu: object) -> int:
    depth = pdu.get("depth") if isinstance(pdu, dict) else None
    return depth if isinstance(depth, int) else 0
