"""When each room or user last had news: what makes a sync over what is quiet cost a comparison."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence, Set
from itertools import takewhile
from typing import Generic, TypeAlias, TypeVar

Key = TypeVar("Key", int, str)

#: Reads the newest positions of some rooms from the database.
Load: TypeAlias = Callable[[Sequence[int]], Awaitable[dict[int, int]]]

_MAX_ROOMS = 200_000
_MAX_USERS = 20_000


class _Positions(Generic[Key]):
    """The newest position of one kind of change of each of some rooms or users, ``most`` at once."""

    def __init__(self, floor: int, most: int) -> None:
        self._floor = floor
        self._most = most
        #: The newest change stands last.
        self._newest: OrderedDict[Key, int] = OrderedDict()

    def note(self, key: Key, pos: int) -> None:
        """Something of a room or user changes at ``pos``, which is after every position noted before."""
        self._newest[key] = pos
        self._newest.move_to_end(key)
        if len(self._newest) > self._most:
            _, self._floor = self._newest.popitem(last=False)

    def may_have_changed(self, key: Key, since: int) -> bool:
        """Whether something may have changed after ``since``; where not, nothing has."""
        return since < self._floor or self._newest.get(key, 0) > since


class NewestPositions(_Positions[int]):
    """The newest position of one kind of change in each room, by ``room_nid``.

    Complete for positions after ``floor``: a room that is not noted has not changed
    since.  What is older is read from the database.  A position may be noted before
    it is on disk: that costs a reader a look in vain, while noting it late would hide it.
    """

    def __init__(self, floor: int, load: Load) -> None:
        super().__init__(floor, _MAX_ROOMS)
        self._load = load

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


class UserPositions(_Positions[str]):
    """The newest position of one kind of change of each user.

    Complete for positions after ``floor``, as ``NewestPositions`` is.  A change is noted before it
    is written, so that none is missed whose outcome nobody learns.
    """

    def __init__(self, floor: int) -> None:
        super().__init__(floor, _MAX_USERS)
