"""Which rooms an extension has to tell anew, and which only since when: kept for each connection.

A room comes into scope whole, once.  What changes in it while it is out of scope is told when it
comes back.  Neither costs a walk over all rooms in view: rooms come into view by being told, and
of those out of scope only the ones that changed are remembered.
Specification: MSC4508, "Common per-room extension semantics".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

import msgspec

from homeserver.sync.sliding.extension import SlidingReading

Selection = tuple[tuple[str, ...] | None, tuple[str, ...] | None]


class Followed(msgspec.Struct, frozen=True, gc=False):
    """What an extension has told a connection."""

    #: Rooms that were told whole.
    told: frozenset[int]
    #: Those of them with changes that were not told, by the position these come after.
    behind: Mapping[int, int]
    selection: Selection


class Due(msgspec.Struct, frozen=True, gc=False):
    """The rooms to look at."""

    whole: frozenset[int]
    #: Those with changes, by the position these come after.
    after: Mapping[int, int]


def rooms_due(
    name: str,
    asked: Mapping[str, Any],
    reading: SlidingReading,
    changed: Collection[int],
    only: Set[int] | None = None,
) -> Due:
    """The rooms that extension ``name`` has to look at; the connection remembers that it did.

    ``changed`` are those with changes after ``reading.since``; without ``only`` all rooms in scope
    may be told, else those.  Raises as ``SlidingReading.rooms``.
    """
    scope = reading.rooms(asked)
    before: Followed | None = reading.memory.get(name)
    selection = _selection(asked)
    told = _still_told(before, reading)
    whole = frozenset(
        nid
        for nid in _candidates(reading, scope, before, selection)
        if nid in scope and (only is None or nid in only) and (nid not in told or reading.sent_rooms.get(nid))
    )
    behind = dict(before.behind) if before is not None else {}
    for nid in changed:
        if nid in told and reading.since is not None:
            behind.setdefault(nid, reading.since.pos)
    after = {nid: pos for nid, pos in behind.items() if nid in scope and nid not in whole and nid in told}
    left = {nid: pos for nid, pos in behind.items() if nid in told and nid not in after and nid not in whole}
    reading.memory[name] = Followed(told | whole if whole else told, left, selection)
    return Due(whole, after)


def _candidates(
    reading: SlidingReading, scope: Set[int], before: Followed | None, selection: Selection
) -> Collection[int]:
    """Among what the rooms are that have come into scope."""
    if reading.since is None:
        return reading.sent_rooms
    if before is None or before.selection != selection or selection[0] is not None:
        return scope
    return {*reading.sent_rooms, *reading.subscriptions.values()}


def _still_told(before: Followed | None, reading: SlidingReading) -> frozenset[int]:
    """Rooms that were told, without those the user is told to be no longer in: these begin anew."""
    if before is None:
        return frozenset()
    joined = reading.memberships.joined
    gone = {nid for nid in reading.sent_rooms if nid not in joined and nid in before.told}
    return before.told - gone if gone else before.told


def _selection(asked: Mapping[str, Any]) -> Selection:
    lists, rooms = asked.get("lists"), asked.get("rooms")
    return None if lists is None else tuple(lists), None if rooms is None else tuple(rooms)
