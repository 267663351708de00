"""Searching messages, names and topics (client-server API, "Server Side Search")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.errors import MatrixError, invalid_param
from homeserver.protocol.filters import InvalidFilter, RoomEventFilter
from homeserver.replies import Reply
from homeserver.rooms.history import History
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.visibility import SeenEvent
from homeserver.search.context import Context, Contexts
from homeserver.search.documents import KEYS
from homeserver.search.pages import Criteria, Found, FoundGroup, Hit
from homeserver.search.paging import GroupKey, NextBatch, Order
from homeserver.search.search import Search
from homeserver.storage.events import StoredEvent
from homeserver.sync.client_events import ClientEvents, Encoded, Form
from homeserver.sync.positions import SyncToken
from homeserver.turns import in_turns
from homeserver.web import Request

_DEFAULT_LIMIT = 10
_MAX_LIMIT = 100
#: Events of a context on each side, by default and at most.
_DEFAULT_AROUND = 5
_MAX_AROUND = 50

_FORM = Form()
_ORDERS: Mapping[str, Order] = {"rank": "rank", "recent": "recent"}
_GROUPS: Mapping[str, GroupKey] = {"room_id": "room_id", "sender": "sender"}


class _Around(msgspec.Struct, frozen=True):
    before_limit: int = _DEFAULT_AROUND
    after_limit: int = _DEFAULT_AROUND
    include_profile: bool = False


class _Grouping(msgspec.Struct, frozen=True):
    key: str


class _Groupings(msgspec.Struct, frozen=True):
    group_by: list[_Grouping] = []


class _RoomEvents(msgspec.Struct, frozen=True):
    search_term: str
    keys: list[str] | None = None
    filter: dict[str, Any] = {}
    order_by: str = "rank"
    event_context: _Around | None = None
    include_state: bool = False
    groupings: _Groupings = _Groupings()


class _Categories(msgspec.Struct, frozen=True):
    room_events: _RoomEvents | None = None


class _Body(msgspec.Struct, frozen=True):
    search_categories: _Categories


class SearchApi:
    """The endpoint that finds messages; without a ``search`` it refuses to."""

    def __init__(
        self,
        search: Search | None,
        contexts: Contexts | None,
        history: History,
        states: StateStore,
        client_events: ClientEvents,
    ) -> None:
        self._search = search
        self._contexts = contexts
        self._history = history
        self._states = states
        self._client_events = client_events

    async def search(self, request: Request) -> Reply:
        """``POST /search``."""
        wanted = request.decode(_Body).search_categories.room_events
        if self._search is None:
            raise MatrixError(400, "M_UNKNOWN", "Messages cannot be searched on this server")
        if wanted is None:
            return {"search_categories": {}}
        criteria = _criteria(wanted, request.query.get("next_batch"))
        around = _around(wanted.event_context)
        found = await self._search.find(request.requester.user_id, criteria)
        reply: dict[str, Any] = {
            "count": found.count,
            "highlights": found.highlights,
            "results": await self._results(request, found, around),
        }
        if criteria.groups:
            reply["groups"] = _groups(found)
        if wanted.include_state:
            reply["state"] = await self._state(request.requester.user_id, found)
        if found.next_batch is not None:
            reply["next_batch"] = str(found.next_batch)
        return {"search_categories": {"room_events": reply}}

    async def _results(self, request: Request, found: Found, around: _Around | None) -> list[dict[str, Any]]:
        """The results in their order; what belongs to one room is written at once."""
        rooms: dict[int, list[Hit]] = {}
        for hit in found.hits:
            rooms.setdefault(hit.room.nid, []).append(hit)
        written: dict[int, Encoded] = {}
        for hits in rooms.values():
            events = await self._write(request, hits[0], [hit.seen for hit in hits])
            written |= {hit.seen.stored.nid: event for hit, event in zip(hits, events, strict=True)}
        results = []
        async for hit in in_turns(found.hits):
            result: dict[str, Any] = {"rank": hit.match.score, "result": written[hit.seen.stored.nid]}
            if around is not None:
                result["context"] = await self._context(request, hit, around)
            results.append(result)
        return results

    async def _context(self, request: Request, hit: Hit, around: _Around) -> dict[str, Any]:
        assert self._contexts is not None  # there is one wherever there is a search
        context = await self._contexts.around(
            hit.room,
            request.requester.user_id,
            hit.seen,
            around.before_limit,
            around.after_limit,
            with_members=around.include_profile,
        )
        written: dict[str, Any] = {
            "start": str(SyncToken(context.start)),
            "end": str(SyncToken(context.end)),
            "events_before": await self._write(request, hit, context.before),
            "events_after": await self._write(request, hit, context.after),
        }
        if around.include_profile:
            written["profile_info"] = _profiles(context)
        return written

    async def _write(self, request: Request, hit: Hit, seen: Sequence[SeenEvent]) -> list[Encoded]:
        requester = request.requester
        return await self._client_events.write(hit.room, requester.user_id, requester.device_id, seen, _FORM)

    async def _state(self, user_id: str, found: Found) -> dict[str, list[Encoded]]:
        """The state of each room of the results as the user sees it, as far as it is here."""
        state: dict[str, list[Encoded]] = {}
        for room_id in dict.fromkeys(hit.room.room_id for hit in found.hits):
            try:
                view = await self._history.view(user_id, room_id)
            except MatrixError:
                continue  # once anybody could read it
            events = list((await self._states.events_at(view.room, view.state_ref)).values())
            state[room_id] = await self._client_events.write_much_state(events, _FORM)
        return state


def _criteria(wanted: _RoomEvents, next_batch: str | None) -> Criteria:
    """What is asked for; ``M_INVALID_PARAM`` for values that the specification does not have."""
    order = _ORDERS.get(wanted.order_by)
    if order is None:
        raise invalid_param("'order_by' must be 'rank' or 'recent'")
    keys = [*KEYS] if wanted.keys is None else wanted.keys
    if not {*keys} <= {*KEYS}:
        raise invalid_param(f"'keys' must be among {', '.join(KEYS)}")
    groups = [grouping.key for grouping in wanted.groupings.group_by]
    if not {*groups} <= {*_GROUPS}:
        raise invalid_param("'group_by' must be 'room_id' or 'sender'")
    try:
        chosen = RoomEventFilter.parse(wanted.filter)
    except InvalidFilter as error:
        raise invalid_param(str(error)) from None
    return Criteria(
        text=wanted.search_term,
        fields=frozenset(KEYS[key] for key in keys),
        filter=chosen,
        order=order,
        limit=min(_DEFAULT_LIMIT if chosen.limit is None else chosen.limit, _MAX_LIMIT),
        groups=tuple(_GROUPS[key] for key in dict.fromkeys(groups)),
        after=None if next_batch is None else NextBatch.parse(next_batch, order),
    )


def _around(wanted: _Around | None) -> _Around | None:
    if wanted is None:
        return None
    if wanted.before_limit < 0 or wanted.after_limit < 0:
        raise invalid_param("'before_limit' and 'after_limit' must not be negative")
    return _Around(
        min(wanted.before_limit, _MAX_AROUND), min(wanted.after_limit, _MAX_AROUND), wanted.include_profile
    )


def _groups(found: Found) -> dict[str, dict[str, Any]]:
    return {
        key: {value: _group(group, order) for order, (value, group) in enumerate(groups.items(), 1)}
        for key, groups in found.groups.items()
    }


def _group(group: FoundGroup, order: int) -> dict[str, Any]:
    written: dict[str, Any] = {"order": order, "results": group.event_ids}
    if group.next_batch is not None:
        written["next_batch"] = str(group.next_batch)
    return written


def _profiles(context: Context) -> dict[str, dict[str, str]]:
    return {member.event.state_key or "": _profile(member) for member in context.members}


def _profile(member: StoredEvent) -> dict[str, str]:
    content = member.event.content
    return {
        name: value for name in ("displayname", "avatar_url") if isinstance(value := content.get(name), str)
    }
