"""What an extension of sliding sync is asked, and what it answers.

Extensions tell what is no event of a room: messages to the device, receipts, who types.  They
are handed one reading of the streams and know nothing of lists, ranges and connections.
Specification: MSC4186, "Extensions".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

import msgspec

from homeserver.errors import MatrixError
from homeserver.sync.memberships import UserRooms
from homeserver.sync.positions import SyncToken

_ALL = "*"
#: Names in one selection.
_MAX_NAMED = 1000


class RoomUnion(Set[int]):
    """Several sets of room numbers as one, without a copy of any.

    ``len`` may count a room twice: enough for whoever weighs what to walk over.
    """

    __slots__ = ("_sets",)

    def __init__(self, sets: Sequence[Set[int]]) -> None:
        self._sets = sets

    def __contains__(self, room_nid: object) -> bool:
        return any(room_nid in rooms for rooms in self._sets)

    def __iter__(self) -> Iterator[int]:
        seen: set[int] = set()
        for rooms in self._sets:
            for nid in rooms:
                if nid not in seen:
                    seen.add(nid)
                    yield nid

    def __len__(self) -> int:
        return sum(len(rooms) for rooms in self._sets)


class SlidingReading(msgspec.Struct, frozen=True):
    """One reading of one connection: everything after ``since`` up to ``now``, nothing beyond.

    Rooms are named by their numbers (``Rooms.by_nid`` knows their ids, ``memberships.by_room``
    the user's part in them).
    """

    user_id: str
    #: ``None`` for tokens that belong to no device.
    device_id: str | None
    #: What the connection has been told everything up to; ``None`` on its first request.
    since: SyncToken | None
    now: SyncToken
    memberships: UserRooms
    #: The rooms inside the ranges of each list.  Testing for a room is cheap however large the
    #: set; walking over one costs as much as the client looks at.
    lists: Mapping[str, Set[int]]
    #: Subscribed rooms the user may see, by room id.
    subscriptions: Mapping[str, int]
    #: Rooms told in this response, and whether this connection sees each for the first time.
    #: What an extension keeps of a room is told whole where that is true.
    sent_rooms: Mapping[int, bool]
    #: Users whose messages are not shown.
    ignored: frozenset[str]
    #: What extensions keep for the connection, by a name of their own choice (their own name), as
    #: it was at ``since``.  What is put here is kept only when this response is given; a
    #: repeated request finds what there was before.  Values must not be changed in place, and
    #: must be bounded in size.  In memory only: a new connection starts with nothing.
    memory: dict[str, Any]
    #: Where the timelines begin that are told: events after these positions are in them.
    timelines: Mapping[int, int] = msgspec.field(default_factory=dict)

    def rooms(self, asked: Mapping[str, Any]) -> Set[int]:
        """The rooms an extension is asked about by ``lists`` and ``rooms``: all in view where unsaid.

        ``lists`` names lists of the request, ``rooms`` subscribed rooms; ``*`` is all of them.
        ``M_INVALID_PARAM`` for what is no list of names.
        """
        lists = self._selected(asked, "lists", self.lists)
        subscribed = self._selected(asked, "rooms", self.subscriptions)
        sets: list[Set[int]] = [self.lists[name] for name in lists]
        if subscribed:
            sets.append({self.subscriptions[room_id] for room_id in subscribed})
        return sets[0] if len(sets) == 1 else RoomUnion(sets)

    @staticmethod
    def _selected(asked: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> list[str]:
        wanted = asked.get(name)
        if wanted is None:
            return list(known)
        if not isinstance(wanted, list) or len(wanted) > _MAX_NAMED:
            raise MatrixError(400, "M_INVALID_PARAM", f"'{name}' of an extension must be a list of names")
        if not all(isinstance(one, str) for one in wanted):
            raise MatrixError(400, "M_INVALID_PARAM", f"'{name}' of an extension must be a list of names")
        return list(known) if _ALL in wanted else [one for one in dict.fromkeys(wanted) if one in known]


class Extension(Protocol):
    """One extension of sliding sync.

    ``asked`` is its part of the request's ``extensions``, an object; the caller leaves out those
    that are not ``enabled``.  What it needs to know between requests are ``since`` and ``now``;
    for more there is ``SlidingReading.memory``.
    """

    #: Its keys in requests' and responses' ``extensions``: some have an unstable and a stable one.
    #: It is asked once, by the first of them that a request has, and answers under the same.
    @property
    def names(self) -> tuple[str, ...]: ...

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """Its part of the response (``None``: it is left out), and whether that ends the waiting."""
        ...
