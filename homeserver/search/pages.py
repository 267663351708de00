"""Pages of results, put together from one window after the other of what an index finds.

A window are the newest documents that may fit, up to some event; what it holds is put in order, and
the next one is older.  So work is bounded however often a word was said, and all can be reached.
"""

from __future__ import annotations

import msgspec

from homeserver.protocol.filters import RoomEventFilter
from homeserver.protocol.search_query import Match, Query, highlights_of
from homeserver.rooms.room import Room
from homeserver.rooms.visibility import SeenEvent
from homeserver.search.paging import Group, GroupKey, NextBatch, Order, Place, first_batch

#: Windows that one request looks into; the next page goes on below them.
_MAX_WINDOWS = 4


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


class Window(msgspec.Struct, frozen=True):
    """The hits among the newest documents up to some event, in their order."""

    upto: int
    hits: list[Hit]
    #: Where the next window begins; ``None`` after the last.
    below: int | None


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


class Pages:
    """The page that was asked for, put together from one window after the other."""

    def __init__(self, criteria: Criteria, start: NextBatch) -> None:
        self._criteria = criteria
        self._start = start
        self._page: list[Hit] = []
        #: The hits that come after the page in the last window.
        self._rest: list[Hit] = []
        self._windows = 0
        #: Hits that were counted.
        self._count = start.passed
        #: Of each hit of the page (``event_nid``), where its window begins, and what was counted before.
        self._origins: dict[int, tuple[int, int]] = {}
        self._below: int | None = None

    @property
    def go_on(self) -> bool:
        """Whether another window is wanted."""
        missing = len(self._page) < self._criteria.limit
        return not self._windows or (missing and self._windows < _MAX_WINDOWS)

    def add(self, window: Window) -> None:
        """Take what is missing from the next window."""
        group = self._start.group
        rest = [
            hit
            for hit in window.hits
            if (self._windows or hit.place < self._start.after)
            and (group is None or hit.group(group.key) == group.value)
        ]
        missing = self._criteria.limit - len(self._page)
        self._page += rest[:missing]
        self._origins |= {hit.seen.stored.nid: (window.upto, self._count) for hit in rest[:missing]}
        self._rest = rest[missing:]
        self._windows += 1
        self._count += len(window.hits)
        self._below = window.below

    def found(self, query: Query) -> Found:
        """The page, and where the next ones begin."""
        return Found(
            count=self._count,
            hits=self._page,
            highlights=highlights_of(query, [hit.match for hit in self._page]),
            groups={key: self._groups(key) for key in self._criteria.groups},
            next_batch=self._next(),
        )

    def _next(self) -> NextBatch | None:
        order, group = self._criteria.order, self._start.group
        if not self._criteria.limit:
            return None
        # COMPAT: conformance suites want a next_batch with every full page, also with the last one.
        if len(self._page) == self._criteria.limit:
            return self._after(self._page[-1], group)
        if self._below is None:
            return None
        return first_batch(order, self._below, group, self._count)

    def _after(self, hit: Hit, group: Group | None) -> NextBatch:
        upto, passed = self._origins[hit.seen.stored.nid]
        return NextBatch(self._criteria.order, upto, hit.place, group, passed)

    def _groups(self, key: GroupKey) -> dict[str, FoundGroup]:
        """The groups of the page, in the order in which their first results come."""
        members: dict[str, list[Hit]] = {}
        for hit in self._page:
            members.setdefault(hit.group(key), []).append(hit)
        unfinished = {hit.group(key) for hit in self._rest}
        return {
            value: FoundGroup(
                [hit.seen.stored.id for hit in group],
                self._after(group[-1], Group(key, value))
                if value in unfinished or self._below is not None
                else None,
            )
            for value, group in members.items()
        }
