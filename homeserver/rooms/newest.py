"""When each room or user last had news: what makes a sync over what is quiet cost a comparison."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence, Set
from itertools import takewhile
from typing import TypeAlias

#: Reads the newest positions of some rooms from the database.
Load: TypeAlias = Callable[[Sequence[int]], Awaitable[dict[int, int]]]

_MAX_ROOMS = 200_000
_MAX_USERS = 20_000


class NewestPositions:
    """The newest position of one kind of change in each room.

    Complete for positions after ``floor``: a room that is not noted has not changed
    since.  What is older is read from the database.  A position may be noted before
    it is on disk: that costs a reader a look in vain, while noting it late would hide it.
    """

    def __init__(self, floor: int, load: Load) -> None:
        self._floor = floor
        self._load = load
        #: The newest change stands last.
        self._newest: OrderedDict[int, int] = OrderedDict()

    def note(self, room_nid: int, pos: int) -> None:
        """A room changes at ``pos``, which is after every position noted before."""
        self._newest[room_nid] = pos
        self._newest.move_to_end(room_nid)
        if len(self._newest) > _MAX_ROOMS:
            _, self._floor = self._newest.popitem(last=False)

    async def changed(self, room_nids: Set[int], since: int) -> set[int]:
        """Those of the rooms that changed after ``since``."""
        changed = self._noted(room_nids, since)
        if since < self._floor:
            stored = await self._load([nid for nid in room_nids if nid not in changed])
            changed.update(nid for nid, pos in stored.items() if pos > since)
        return changed

    def changed_anywhere(self, since: int) -> list[int]:
        """All rooms that changed after ``since``, as far as that is not before the start."""
        return [nid for nid, _ in takewhile(lambda item: item[1] > since, reversed(self._newest.items()))]

    def has_changed(self, room_nid: int, since: int) -> bool:
        """Whether one room may have changed after ``since``: certain only for positions after the start."""
        return since < self._floor or self._newest.get(room_nid, 0) > since

    def position(self, room_nid: int) -> int:
        """The newest position that was noted of a room; 0 for none."""
        return self._newest.get(room_nid, 0)

    def _noted(self, room_nids: Set[int], since: int) -> set[int]:
        newest = self._newest
        changed: set[int] = set()
        for count, (nid, pos) in enumerate(reversed(newest.items())):
            if pos <= since:
                return changed
            if count >= len(room_nids):
                break
            if nid in room_nids:
                changed.add(nid)
        else:
            return changed
        return {nid for nid in room_nids if newest.get(nid, 0) > since}


class UserPositions:
    """The newest position of one kind of change of each user.

    Complete for positions after ``floor``, as ``NewestPositions`` is.  A change is noted before it
    is written, so that none is missed whose outcome nobody learns.
    """

    def __init__(self, floor: int) -> None:
        self._floor = floor
        #: The newest change stands last.
        self._newest: OrderedDict[str, int] = OrderedDict()

    def note(self, user_id: str, pos: int) -> None:
        """Something of a user changes at ``pos``, which is after every position noted before."""
        self._newest[user_id] = pos
        self._newest.move_to_end(user_id)
        if len(self._newest) > _MAX_USERS:
            _, self._floor = self._newest.popitem(last=False)

    def may_have_changed(self, user_id: str, since: int) -> bool:
        """Whether something of a user may have changed after ``since``; where not, nothing has."""
        return since < self._floor or self._newest.get(user_id, 0) > since
