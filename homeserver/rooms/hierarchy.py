"""Walking through spaces: the rooms a space holds, those that its subspaces hold, and so on.

Depth first, each room once, so that loops end.  Rooms this server is in are described from
its own state; other servers are asked about the rest, several at once and within a bound of
time, after which a page ends early and says where to go on.  A walk that is not at its
end is remembered for some minutes.  Specification: client-server API, "Spaces".
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.clock import Clock
from homeserver.errors import forbidden, invalid_param, not_found
from homeserver.protocol.event_format import stripped
from homeserver.protocol.spaces import CHILD, SPACE, children_in_order, is_suggested, servers_of
from homeserver.rooms.accessible import Accessible
from homeserver.rooms.remote_spaces import MAX_CHILDREN, RemoteRoom, RemoteSpaces
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.servers import servers_that_know
from homeserver.rooms.summaries import RoomSummaries, RoomSummary
from homeserver.storage.database import Database

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_DEPTH = 50

#: How many rooms are looked up together, so that slow servers are waited for at the same time.
_LOOK_AHEAD = 10
#: After this many seconds no more servers are asked for one page.
_PAGE_SECONDS = 20.0
_MAX_PENDING = 5_000
#: One server's answer to another holds at most this many children.
_MAX_CHILDREN_TOLD = 100

_WALKS_KEPT = 1_000
_WALK_KEPT_S = 300.0


class _Place(msgspec.Struct, frozen=True, gc=False):
    """A room that is still to be visited."""

    room_id: str
    servers: tuple[str, ...]
    depth: int = 0
    #: What the server that told of the space told of this room with it, if anything.
    told: Mapping[str, RemoteRoom | None] = {}


class _Walk(msgspec.Struct, frozen=True, gc=False):
    """A walk between two pages; ``pending`` is visited from its end."""

    user_id: str
    room_id: str
    max_depth: int
    suggested_only: bool
    pending: tuple[_Place, ...]
    visited: frozenset[str] = frozenset()


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """A room that the walk shows."""

    described: dict[str, Any]
    #: Valid ``m.space.child`` events, in order.
    children: Sequence[Mapping[str, Any]]
    #: What another server told of the children, where the room was described by one.
    told: Mapping[str, RemoteRoom | None] = {}

    def json(self) -> dict[str, Any]:
        return {**self.described, "children_state": list(self.children)}


class Hierarchy:
    """Walks through spaces and describes single rooms, for users and for other servers."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        summaries: RoomSummaries,
        accessible: Accessible,
        remote: RemoteSpaces,
        clock: Clock,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._summaries = summaries
        self._accessible = accessible
        self._remote = remote
        self._clock = clock
        #: By token: until when it is kept, and the walk.
        self._walks: OrderedDict[str, tuple[float, _Walk]] = OrderedDict()

    async def page(
        self,
        user_id: str,
        room_id: str,
        *,
        limit: int = DEFAULT_LIMIT,
        max_depth: int = MAX_DEPTH,
        suggested_only: bool = False,
        token: str | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Up to ``limit`` rooms of a space for a local user, and the token of the next page.

        ``M_FORBIDDEN`` for a room that the user may not know of; ``M_INVALID_PARAM`` for a
        token that is not known or belongs to another question.
        """
        if token is not None:
            walk = self._resumed(token, user_id, room_id, max_depth, suggested_only)
        else:
            room = await self._rooms.find(room_id)
            servers = await servers_that_know(self._db.read, user_id, room_id, room)
            start = _Place(room_id, tuple(servers))
            walk = _Walk(user_id, room_id, max_depth, suggested_only, (start,))
        shown, rest = await self._walk(walk, limit)
        if not walk.visited and not shown:
            raise forbidden("There is no such room, or you may not know of it")
        return [entry.json() for entry in shown], self._kept(rest) if rest.pending else None

    async def for_server(self, server_name: str, room_id: str, *, suggested_only: bool) -> dict[str, Any]:
        """A room and its children as another server may know of them: the answer to ``GET /hierarchy``.

        ``M_NOT_FOUND`` for a room this server is not in, and for one that server may not know of.
        """
        summary = (await self._summaries.by_ids([room_id])).get(room_id)
        if summary is None or not summary.resident:
            raise not_found("Unknown room")
        if not await self._accessible.to_server(server_name, [summary]):
            raise not_found("Unknown room")
        children = await self._children(summary, suggested_only=suggested_only)
        wanted = [child["state_key"] for child in children[:_MAX_CHILDREN_TOLD]]
        here = [each for each in (await self._summaries.by_ids(wanted)).values() if each.resident]
        known = {child.room_id: child for child in here}
        may_know = await self._accessible.to_server(server_name, here)
        return {
            "room": _Entry(summary.described(), children).json(),
            "children": [known[each].described() for each in wanted if each in may_know],
            "inaccessible_children": [each for each in wanted if each in known and each not in may_know],
        }

    async def summary(self, user_id: str | None, room_id: str, servers: Sequence[str]) -> dict[str, Any]:
        """A room for a local user or, where everybody may know of it, for anyone, with the membership.

        Other servers are asked for users alone.  ``M_NOT_FOUND``.
        """
        place = _Place(room_id, tuple(servers))
        if user_id is not None:
            known = await servers_that_know(self._db.read, user_id, room_id, await self._rooms.find(room_id))
            place = _Place(room_id, (*servers, *known))
        found = await self._looked_up(user_id, [place], suggested_only=False, ask=user_id is not None)
        entry, membership = found[room_id]
        if entry is None:
            raise not_found("Room not found")
        return (
            entry.described if user_id is None else {**entry.described, "membership": membership or "leave"}
        )

    async def _walk(self, walk: _Walk, limit: int) -> tuple[list[_Entry], _Walk]:
        """The entries of one page, and what is left of the walk."""
        pending, visited = list(walk.pending), set(walk.visited)
        shown: list[_Entry] = []
        known: dict[str, tuple[_Entry | None, str | None]] = {}
        patience = self._clock.monotonic() + _PAGE_SECONDS
        while pending and len(shown) < limit:
            place = pending[-1]
            if place.room_id not in visited and place.room_id not in known:
                if self._clock.monotonic() > patience:
                    break
                ahead = [each for each in pending[: -_LOOK_AHEAD - 1 : -1] if each.room_id not in visited]
                known |= await self._looked_up(
                    walk.user_id,
                    [each for each in ahead if each.room_id not in known],
                    suggested_only=walk.suggested_only,
                )
            pending.pop()
            if place.room_id in visited:
                continue
            visited.add(place.room_id)
            entry = known[place.room_id][0]
            if entry is None:
                continue
            shown.append(entry)
            if place.depth < walk.max_depth and len(pending) < _MAX_PENDING:
                pending += [
                    _Place(child["state_key"], tuple(servers_of(child)), place.depth + 1, entry.told)
                    for child in reversed(entry.children)
                ]
        rest = [place for place in pending if place.room_id not in visited]
        return shown, msgspec.structs.replace(walk, pending=tuple(rest), visited=frozenset(visited))

    async def _looked_up(
        self, user_id: str | None, places: Sequence[_Place], *, suggested_only: bool, ask: bool = True
    ) -> dict[str, tuple[_Entry | None, str | None]]:
        """What a user may know of some rooms, nothing included, and their membership in each."""
        summaries = await self._summaries.by_ids(list({place.room_id for place in places}))
        here = {room_id: summary for room_id, summary in summaries.items() if summary.resident}
        elsewhere = {place.room_id: place for place in places if place.room_id not in here} if ask else {}
        told = await asyncio.gather(
            *(self._described(place, suggested_only=suggested_only) for place in elsewhere.values())
        )
        rooms: list[RoomSummary | RemoteRoom] = [*here.values(), *(room for room in told if room is not None)]
        may_know = await self._accessible.to_user(user_id, rooms)
        found: dict[str, tuple[_Entry | None, str | None]] = dict.fromkeys(
            (place.room_id for place in places), (None, None)
        )
        for room in rooms:
            if room.room_id in may_know:
                children = await self._children(room, suggested_only=suggested_only)
                found[room.room_id] = (_entry(room, children), may_know[room.room_id])
        return found

    async def _described(self, place: _Place, *, suggested_only: bool) -> RemoteRoom | None:
        if place.room_id in place.told:
            return place.told[place.room_id]
        return await self._remote.describe(place.room_id, place.servers, suggested_only=suggested_only)

    async def _children(
        self, room: RoomSummary | RemoteRoom, *, suggested_only: bool
    ) -> list[Mapping[str, Any]]:
        """The valid children of a space; other rooms have none, whatever their state says."""
        events: Sequence[Mapping[str, Any]] = ()
        if isinstance(room, RoomSummary):
            if room.room_type == SPACE:
                events = await self._child_events(room)
        elif room.described.get("room_type") == SPACE:
            events = room.children or ()
        children = children_in_order(events)[:MAX_CHILDREN]
        return [child for child in children if is_suggested(child)] if suggested_only else children

    async def _child_events(self, summary: RoomSummary) -> list[dict[str, Any]]:
        room = await self._rooms.by_nid(summary.room_nid)
        return [
            {**stripped(stored.event), "origin_server_ts": stored.event.origin_server_ts}
            for (type_, _), stored in room.state.items()
            if type_ == CHILD
        ]

    def _kept(self, walk: _Walk) -> str:
        """Remember a walk; its token."""
        token = secrets.token_urlsafe(16)
        self._walks[token] = (self._clock.monotonic() + _WALK_KEPT_S, walk)
        while len(self._walks) > _WALKS_KEPT:
            self._walks.popitem(last=False)
        return token

    def _resumed(self, token: str, user_id: str, room_id: str, max_depth: int, suggested_only: bool) -> _Walk:
        until, walk = self._walks.get(token, (0.0, None))
        if (
            walk is None
            or until < self._clock.monotonic()
            or (walk.user_id, walk.room_id) != (user_id, room_id)
        ):
            raise invalid_param("That token is not known, or not any more")
        if (walk.max_depth, walk.suggested_only) != (max_depth, suggested_only):
            raise invalid_param("'max_depth' and 'suggested_only' cannot change from page to page")
        return walk


def _entry(room: RoomSummary | RemoteRoom, children: Sequence[Mapping[str, Any]]) -> _Entry:
    if isinstance(room, RoomSummary):
        return _Entry(room.described(), children)
    return _Entry(room.described, children, room.told)
