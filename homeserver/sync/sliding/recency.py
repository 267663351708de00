"""Rooms by their last activity, kept in order as they change, so that nobody ever sorts them.

A change costs a binary search and the move of a few kilobytes; a rank costs a binary search.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Set

from homeserver.sync.sliding.request import Ranges


class RecencyList:
    """Room numbers with the position of each room's last activity; rank 0 is the latest."""

    __slots__ = ("_order", "_positions", "changes")

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}
        #: ``(position, room number)``, oldest first.
        self._order: list[tuple[int, int]] = []
        #: How often the order changed.  Between two readings no rank moved by more than what came
        #: to it, so that whoever knows the rooms in a range finds the new ones that near its ends.
        self.changes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, room_nid: object) -> bool:
        return room_nid in self._positions

    def position(self, room_nid: int) -> int:
        """When there was activity the last time; 0 for a room that is not here."""
        return self._positions.get(room_nid, 0)

    def put(self, room_nid: int, position: int) -> None:
        """Place a room."""
        before = self._positions.get(room_nid)
        if before == position:
            return
        if before is not None:
            del self._order[bisect.bisect_left(self._order, (before, room_nid))]
        bisect.insort(self._order, (position, room_nid))
        self._positions[room_nid] = position
        self.changes += 1

    def fill(self, positions: dict[int, int]) -> None:
        """Place all rooms of an empty list."""
        self._positions = positions
        self._order = sorted((position, nid) for nid, position in positions.items())
        self.changes += 1

    def drop(self, room_nid: int) -> None:
        """Take a room out, if it is here."""
        before = self._positions.pop(room_nid, None)
        if before is not None:
            del self._order[bisect.bisect_left(self._order, (before, room_nid))]
            self.changes += 1

    def put_back(self, room_nid: int, position: int) -> None:
        """Place a room that comes to the list without activity: anywhere, not among the latest."""
        self.put(room_nid, position)
        self.changes += len(self._order)

    def rank(self, room_nid: int) -> int | None:
        """The place of a room; ``None`` for one that is not here."""
        position = self._positions.get(room_nid)
        if position is None:
            return None
        return len(self._order) - 1 - bisect.bisect_left(self._order, (position, room_nid))

    def between(self, first: int, last: int) -> Iterator[int]:
        """The rooms with ranks from ``first`` to ``last``, as far as there are any."""
        size = len(self._order)
        for rank in range(max(first, 0), min(last, size - 1) + 1):
            yield self._order[size - 1 - rank][1]

    def after(self, position: int) -> Iterator[int]:
        """Rooms with activity after a position, latest first."""
        for at, room_nid in reversed(self._order):
            if at <= position:
                return
            yield room_nid


class RecencyWindow(Set[int]):
    """The rooms of a list that are inside some ranges, as they are at the moment."""

    __slots__ = ("_firsts", "_ranges", "_rooms")

    def __init__(self, rooms: RecencyList, ranges: Ranges | None) -> None:
        self._rooms = rooms
        self._ranges = _apart(ranges)
        self._firsts = [first for first, _ in self._ranges or ()]

    def __contains__(self, room_nid: object) -> bool:
        rank = self._rooms.rank(room_nid) if isinstance(room_nid, int) else None
        if rank is None or self._ranges is None:
            return rank is not None
        before = bisect.bisect_right(self._firsts, rank)
        return before > 0 and rank <= self._ranges[before - 1][1]

    def __iter__(self) -> Iterator[int]:
        for first, last in self._bounds():
            yield from self._rooms.between(first, last)

    def __len__(self) -> int:
        size = len(self._rooms)
        return sum(max(0, min(last, size - 1) - first + 1) for first, last in self._bounds())

    def near_the_ends(self, changes: int) -> Iterator[int]:
        """The rooms that may have come into the ranges with that many changes of the order."""
        for first, end in self._bounds():
            last = min(end, len(self._rooms) - 1)
            yield from self._rooms.between(first, min(last, first + changes - 1))
            yield from self._rooms.between(max(first + changes, last - changes + 1), last)

    def _bounds(self) -> Ranges:
        return ((0, len(self._rooms) - 1),) if self._ranges is None else self._ranges


def _apart(ranges: Ranges | None) -> Ranges | None:
    """The same ranks in ranges that do not overlap."""
    if ranges is None:
        return None
    apart: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if apart and first <= apart[-1][1] + 1:
            apart[-1] = (apart[-1][0], max(apart[-1][1], last))
        else:
            apart.append((first, last))
    return tuple(apart)
