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
from homeserver.protocol.search_query import Match, Query, match, parse_query
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.search.documents import TYPES, field_of, field_term, room_term
from homeserver.search.index import SearchIndex
from homeserver.search.pages import Criteria, Found, Hit, Pages, Window
from homeserver.search.paging import Order, first_batch, place_of
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage import search as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.search import Candidate, Wanted
from homeserver.turns import in_turns

#: Texts that are compared with a query at once, the newest of those that may fit: a window.
MAX_CANDIDATES = 2_000
#: With more rooms than that they are not looked up in the index, but sorted out of what it finds.
_MAX_ROOM_TERMS = 50
#: Seconds a search waits for what was just sent to be indexed.
_PATIENCE_S = 10.0
#: Texts compared, or events read, before others get their turn.
_AT_ONCE = 100


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
        start = criteria.after or first_batch(criteria.order, await storage.newest(self._db.read))
        asked = await self._wanted(user_id, query, criteria, start.upto)
        pages = Pages(criteria, start)
        while asked is not None and pages.go_on:
            window = await self._window(user_id, query, criteria, asked)
            pages.add(window)
            asked = None if window.below is None else msgspec.structs.replace(asked, upto=window.below)
        return pages.found(query)

    async def _window(self, user_id: str, query: Query, criteria: Criteria, asked: Wanted) -> Window:
        candidates, below = await storage.candidates(
            self._db.scan, self._db.engine, asked, self._max_candidates
        )
        matches = await _matches(query, candidates)
        hits = await self._visible(user_id, criteria, candidates, matches)
        # As tuples, which are compared many times faster.
        hits.sort(key=lambda hit: msgspec.structs.astuple(hit.place), reverse=True)
        return Window(asked.upto, hits, below)

    async def _wanted(self, user_id: str, query: Query, criteria: Criteria, upto: int) -> Wanted | None:
        """What the index is asked for; ``None`` where nothing can be found."""
        wanted, hashes = criteria.filter, self._index.hashes
        if not query.phrases or wanted.allows_nothing:
            return None
        rooms = await self._rooms_of(user_id, wanted)
        fields = sorted(field for field in criteria.fields if wanted.allows_type(TYPES[field]))
        if not rooms or not fields:
            return None
        groups: list[Sequence[str]] = list(query.terms)
        if len(rooms) <= _MAX_ROOM_TERMS:
            groups.append([room_term(room_nid) for room_nid in rooms])
        if len(fields) < len(TYPES):
            groups.append([field_term(field) for field in fields])
        return Wanted(
            terms=[hashes.of(group) for group in groups],
            upto=upto,
            rooms=rooms,
            fields=fields if len(fields) < len(TYPES) else None,
            senders=None if wanted.senders is None else sorted(wanted.senders),
            not_senders=sorted(wanted.not_senders),
            ignored=sorted(await self._ignored.by(user_id)),
            has_url=wanted.contains_url,
        )

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
    async for one in in_turns(candidates):
        fits = match(query, one.words)
        if fits is not None:
            found[one.event_nid] = fits
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
