"""Giving other servers the events and the state of rooms they are in.

Specification: server-server API, "Backfilling and retrieving missing events",
"Retrieving events", "Retrieving event authorisation information".
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec
import orjson

from federation.state_replies import StateReplies, with_commas
from federation.visible_events import VisibleEvents
from homeserver.clock import Clock
from homeserver.errors import forbidden, not_found
from homeserver.replies import Json, Reply
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import check_may_take_part
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.web import Request

MAX_BACKFILLED: Final = 100
MAX_MISSING: Final = 50
_MAX_STARTS: Final = 50
#: How long a server that asks for state waits while this one does not know all of it itself.
_PATIENCE_SECONDS: Final = 60.0
#: How many events a walk passes by that are not given.
_MAX_PASSED: Final = 500

#: Finds events by id.
_Lookup: TypeAlias = Callable[[Sequence[str]], Awaitable[dict[str, StoredEvent]]]


class _MissingEvents(msgspec.Struct):
    earliest_events: list[str]
    latest_events: list[str]
    limit: int = 10
    min_depth: int = 0


class Events:
    """The endpoints for events and state."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        replies: StateReplies,
        visible: VisibleEvents,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._replies = replies
        self._visible = visible
        self._clock = clock
        self._server_name = server_name

    async def event(self, request: Request) -> Reply:
        """``GET /event/{eventId}``."""
        stored = await self._events.by_id(request.params["eventId"])
        if stored is None or stored.rejected:
            raise not_found("Unknown event")
        room = await self._rooms.by_nid(stored.room_nid)
        self._check_is_in(room, request.origin)
        if self._visible.is_over(room, stored):
            raise not_found("Unknown event")
        return self._transaction(await self._visible.pdus(room, request.origin, [stored]))

    async def state(self, request: Request) -> Reply:
        """``GET /state/{roomId}``."""
        state, chain = await self._state(request)
        pieces = [b'{"auth_chain":[', *with_commas(await self._replies.pdus(chain)), b'],"pdus":[']
        pieces += with_commas(await self._replies.pdus(state))
        pieces.append(b"]}")
        return Json(b"".join(pieces))

    async def state_ids(self, request: Request) -> Reply:
        """``GET /state_ids/{roomId}``."""
        state, chain = await self._state(request)
        return {
            "auth_chain_ids": await self._replies.ids(chain),
            "pdu_ids": await self._replies.ids(state),
        }

    async def event_auth(self, request: Request) -> Reply:
        """``GET /event_auth/{roomId}/{eventId}``.

        The create event is in it also where no event cites it, since v12: the room id does.
        """
        room = await self._room(request)
        stored = await self._event_of(room, request.params["eventId"])
        chain = await self._replies.auth_chain([stored.nid])
        if stored.nid != room.create.nid and room.create.nid not in chain:
            chain.insert(0, room.create.nid)
        return Json(b'{"auth_chain":[' + b",".join(await self._replies.pdus(chain)) + b"]}")

    async def backfill(self, request: Request) -> Reply:
        """``GET /backfill/{roomId}``: the events asked for and those before them, newest first."""
        room = await self._room(request)
        limit = request.query_int("limit", 10, 1, MAX_BACKFILLED)
        starts = request.query_all("v")[:_MAX_STARTS]
        known = await self._history(room, starts, limit)
        found = await walk_back(
            room, known, starts, limit=limit, is_over=partial(self._visible.is_over, room)
        )
        return self._transaction(await self._visible.pdus(room, request.origin, found))

    async def get_missing_events(self, request: Request) -> Reply:
        """``POST /get_missing_events/{roomId}``: what lies between, the oldest first."""
        room = await self._room(request)
        wanted = request.decode(_MissingEvents)
        limit = max(0, min(wanted.limit, MAX_MISSING))
        latest = wanted.latest_events[:_MAX_STARTS]
        known = await self._history(room, latest, limit + len(latest))
        found = await walk_back(
            room,
            known,
            latest,
            limit=limit,
            without=wanted.earliest_events[:_MAX_STARTS],
            with_starts=False,
            min_depth=wanted.min_depth,
            is_over=partial(self._visible.is_over, room),
            # Who asks must have all that an event builds on, however long the branches behind it are.
            nearest_first=True,
        )
        found.sort(key=lambda stored: (stored.event.depth, stored.pos or 0))
        pdus = await self._visible.pdus(room, request.origin, found)
        return Json(b'{"events":[' + b",".join(pdus) + b"]}")

    async def _state(self, request: Request) -> tuple[list[int], list[int]]:
        """The state before an event, and its auth chain.

        ``M_FORBIDDEN`` for servers that nobody at the event was of, where history is not theirs to see,
        but for the event that one of theirs joined upon.
        """
        event_id = request.query_text("event_id")
        room = await self._rooms.whole(await self._room(request), _PATIENCE_SECONDS)
        self._check_is_in(room, request.origin)
        stored = await self._event_of(room, event_id)
        visible = await self._visible.among(room, request.origin, [stored])
        if not visible and not await self._visible.leads_to_a_join(room, request.origin, stored):
            raise forbidden("Your server may not see the event")
        state = await self._replies.state_before(room, stored)
        return state, await self._replies.auth_chain(state)

    async def _room(self, request: Request) -> Room:
        room = await self._rooms.get(request.params["roomId"])
        self._check_is_in(room, request.origin)
        return room

    def _check_is_in(self, room: Room, origin: str) -> None:
        if not room.servers.get(origin):
            raise forbidden("Your server is not in the room")
        check_may_take_part(room, origin)

    async def _event_of(self, room: Room, event_id: str) -> StoredEvent:
        stored = await self._events.by_id(event_id)
        if stored is None or stored.room_nid != room.nid or stored.rejected:
            raise not_found("Unknown event")
        return stored

    async def _history(self, room: Room, starts: Sequence[str], limit: int) -> _Lookup:
        """Finds events; those of the timeline before ``starts`` are read in one go."""
        known = await self._events.by_ids(starts)
        newest = max((stored.pos for stored in known.values() if stored.pos is not None), default=None)
        if newest is not None:
            for stored in await event_storage.timeline_backward(self._db.scan, room.nid, newest, limit):
                known[stored.id] = stored

        async def lookup(event_ids: Sequence[str]) -> dict[str, StoredEvent]:
            found = {event_id: known[event_id] for event_id in event_ids if event_id in known}
            return found | await self._events.by_ids([each for each in event_ids if each not in found])

        return lookup

    def _transaction(self, pdus: Sequence[bytes]) -> Json:
        head = orjson.dumps({"origin": self._server_name, "origin_server_ts": self._clock.now_ms()})
        return Json(head[:-1] + b',"pdus":[' + b",".join(pdus) + b"]}")


async def walk_back(
    room: Room,
    lookup: _Lookup,
    starts: Iterable[str],
    *,
    limit: int,
    without: Iterable[str] = (),
    with_starts: bool = True,
    min_depth: int = 0,
    nearest_first: bool = False,
    is_over: Callable[[StoredEvent], bool] = lambda stored: stored.purged,
) -> list[StoredEvent]:
    """Up to ``limit`` events reached from ``starts`` by ``prev_events``: the deepest ones, or the nearest.

    Stops at events that are in ``without``, of another room, not part of the timeline or less
    deep than ``min_depth``, and does not include them; goes on behind rejected ones, and those
    that are over, without including them.
    """
    begun = list(dict.fromkeys(starts))
    seen = {*begun, *without}
    wanted, walked = begun, 0
    pending: list[tuple[int, int, StoredEvent]] = []
    found: list[StoredEvent] = []
    while len(found) < limit and walked < limit + _MAX_PASSED:
        for stored in (await lookup(wanted)).values():
            if stored.room_nid == room.nid and stored.state_before is not None:
                walked += 1
                order = 0 if nearest_first else -stored.event.depth
                heapq.heappush(pending, (order, walked, stored))
        if not pending:
            break
        _, _, stored = heapq.heappop(pending)
        if stored.event.depth < min_depth:
            wanted = []
            continue
        if (with_starts or stored.id not in begun) and not (stored.rejected or is_over(stored)):
            found.append(stored)
        wanted = [event_id for event_id in stored.event.prev_events if event_id not in seen]
        seen.update(wanted)
    return found
