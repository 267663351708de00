"""Finds messages, names and topics in the rooms somebody is or was in, page by page.

An index gives the newest documents that have the words' terms; which of them fit, and how well, is
decided over their words, and by what the user may see.  So both engines give the same results, and
what is counted is what may be seen.  Specification: client-server API, "Server Side Search".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from homeserver.protocol.filters import RoomEventFilter
from homeserver.protocol.search_query import Match, Query, highlights_of, match, parse_query
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.search.documents import TYPES, field_of, field_term, room_term
from homeserver.search.index import SearchIndex
from homeserver.search.paging import Group, GroupKey, NextBatch, Order, Place, place_of
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage import search as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.search import Candidate, Wanted

#: Texts that are compared with a query, the newest of those that may fit.
MAX_CANDIDATES = 2_000
#: With more rooms than that they are not looked up in the index, but sorted out of what it finds.
_MAX_ROOM_TERMS = 50
#: Seconds a search waits for what was just sent to be indexed.
_PATIENCE_S = 10.0
#: Texts compared, or events read, before others get their turn.
_AT_ONCE = 100


class Criteria(msgspec.Struct, frozen=True):
    """What a client looks for."""

    text: str
    fields: frozenset[int]
    filter: RoomEventFilter
    order: Order
    limit: int
    groups: tuple[GroupKey, ...] = ()
    after: NextBatch | None = None


class Hit(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An event that was found."""

    room: Room
    seen: SeenEvent
    match: Match
    place: Place

    def group(self, key: GroupKey) -> str:
        """The group it belongs to."""
        return self.room.room_id if key == "room_id" else self.seen.stored.event.sender


class FoundGroup(msgspec.Struct, frozen=True):
    """The results of a page that belong to one group."""

    event_ids: list[str]
    #: ``None`` where there are no more in this group.
    next_batch: NextBatch | None


class Found(msgspec.Struct, frozen=True):
    """A page of results."""

    count: int
    hits: list[Hit]
    highlights: list[str]
    groups: dict[GroupKey, dict[str, FoundGroup]]
    next_batch: NextBatch | None


class Search:
    """Searches."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        visibility: Visibility,
        ignored: IgnoredUsers,
        index: SearchIndex,
        patience: float = _PATIENCE_S,
        max_candidates: int = MAX_CANDIDATES,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._visibility = visibility
        self._ignored = ignored
        self._index = index
        self._patience = patience
        self._max_candidates = max_candidates

    async def find(self, user_id: str, criteria: Criteria) -> Found:
        """A page of what a user may see of what was looked for.

        Everything that was sent before is in it, unless the index is seconds behind.
        """
        await self._index.catch_up(self._patience)
        query = parse_query(criteria.text)
        after = criteria.after
        upto = after.upto if after is not None else await storage.newest(self._db.read)
        hits: list[Hit] = []
        if query.phrases and not criteria.filter.allows_nothing:
            candidates = await self._candidates(user_id, query, criteria, upto)
            matches = await _matches(query, candidates)
            hits = await self._visible(user_id, criteria, candidates, matches)
        hits.sort(key=lambda hit: hit.place, reverse=True)
        return _page(query, criteria, hits, upto)

    async def _candidates(self, user_id: str, query: Query, criteria: Criteria, upto: int) -> list[Candidate]:
        wanted, hashes = criteria.filter, self._index.hashes
        rooms = await self._rooms_of(user_id, wanted)
        fields = sorted(field for field in criteria.fields if wanted.allows_type(TYPES[field]))
        if not rooms or not fields:
            return []
        groups: list[Sequence[str]] = list(query.terms)
        if len(rooms) <= _MAX_ROOM_TERMS:
            groups.append([room_term(room_nid) for room_nid in rooms])
        if len(fields) < len(TYPES):
            groups.append([field_term(field) for field in fields])
        asked = Wanted(
            terms=[hashes.of(group) for group in groups],
            upto=upto,
            rooms=rooms,
            fields=fields if len(fields) < len(TYPES) else None,
            senders=None if wanted.senders is None else sorted(wanted.senders),
            not_senders=sorted(wanted.not_senders),
            ignored=sorted(await self._ignored.by(user_id)),
            has_url=wanted.contains_url,
        )
        return await storage.candidates(self._db.scan, self._db.engine, asked, self._max_candidates)

    async def _rooms_of(self, user_id: str, wanted: RoomEventFilter) -> list[int]:
        """The rooms a user is or was in and has not forgotten, as far as they are asked for."""
        memberships = await room_storage.local_memberships_of(self._db.scan, user_id)
        rooms = {one.room_nid for one in memberships if one.membership in _HAS_BEEN_IN and not one.forgotten}
        if wanted.rooms is not None:
            rooms &= {*(await storage.rooms_named(self._db.scan, sorted(wanted.rooms))).values()}
        if wanted.not_rooms:
            rooms -= {*(await storage.rooms_named(self._db.scan, sorted(wanted.not_rooms))).values()}
        return sorted(rooms)

    async def _visible(
        self,
        user_id: str,
        criteria: Criteria,
        candidates: Sequence[Candidate],
        matches: Mapping[int, Match],
    ) -> list[Hit]:
        """Those of the matches that a user may see, with the text that matches."""
        by_room: defaultdict[int, list[Candidate]] = defaultdict(list)
        for one in candidates:
            if one.event_nid in matches:
                by_room[one.room_nid].append(one)
        hits: list[Hit] = []
        for room_nid, found in by_room.items():
            room = await self._rooms.by_nid(room_nid)
            for start in range(0, len(found), _AT_ONCE):
                part = found[start : start + _AT_ONCE]
                seen = await self._seen(room, user_id, part)
                hits += [
                    _hit(room, seen[one.event_nid], one, matches[one.event_nid], criteria.order)
                    for one in part
                    if one.source_nid in seen
                    and one.event_nid in seen
                    and _allows(criteria, seen[one.event_nid].stored)
                ]
                await asyncio.sleep(0)
        return hits

    async def _seen(self, room: Room, user_id: str, candidates: Sequence[Candidate]) -> dict[int, SeenEvent]:
        """The events, and the edits their texts are from, that a user may see."""
        nids = {nid for one in candidates for nid in (one.event_nid, one.source_nid)}
        stored = await event_storage.by_nids(self._db.scan, sorted(nids))
        seen = await self._visibility.visible(room, user_id, stored.values())
        return {one.stored.nid: one for one in seen}


_HAS_BEEN_IN = frozenset(("join", "leave", "ban"))


async def _matches(query: Query, candidates: Sequence[Candidate]) -> dict[int, Match]:
    found: dict[int, Match] = {}
    for count, one in enumerate(candidates, 1):
        fits = match(query, one.words)
        if fits is not None:
            found[one.event_nid] = fits
        if count % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


def _allows(criteria: Criteria, stored: StoredEvent) -> bool:
    event = stored.event
    return (
        field_of(stored) in criteria.fields
        and not stored.redacted_by
        and criteria.filter.allows_event(event.type, event.sender, event.room_id, lambda: event.content)
    )


def _hit(room: Room, seen: SeenEvent, candidate: Candidate, fits: Match, order: Order) -> Hit:
    return Hit(room, seen, fits, place_of(order, fits.score, candidate.ts, candidate.event_nid))


def _page(query: Query, criteria: Criteria, hits: Sequence[Hit], upto: int) -> Found:
    """The page of hits, given in their order, that was asked for."""
    after = criteria.after
    group = after.group if after is not None else None
    rest = [
        hit
        for hit in hits
        if (after is None or hit.place < after.after)
        and (group is None or hit.group(group.key) == group.value)
    ]
    page = rest[: criteria.limit]
    # COMPAT: conformance suites want a next_batch with every full page, also with the last one.
    more = bool(page) and len(page) == criteria.limit
    return Found(
        count=len(hits),
        hits=page,
        highlights=highlights_of(query, [hit.match for hit in page]),
        groups={key: _groups(key, criteria.order, page, rest[len(page) :], upto) for key in criteria.groups},
        next_batch=NextBatch(criteria.order, upto, page[-1].place, group) if more else None,
    )


def _groups(
    key: GroupKey, order: Order, page: Sequence[Hit], rest: Sequence[Hit], upto: int
) -> dict[str, FoundGroup]:
    """The groups of a page, in the order in which their first results come."""
    members: dict[str, list[Hit]] = {}
    for hit in page:
        members.setdefault(hit.group(key), []).append(hit)
    unfinished = {hit.group(key) for hit in rest}
    return {
        value: FoundGroup(
            [hit.seen.stored.id for hit in group],
            NextBatch(order, upto, group[-1].place, Group(key, value)) if value in unfinished else None,
        )
        for value, group in members.items()
    }
