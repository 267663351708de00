"""When each room last changed: what makes a sync over quiet rooms cost one comparison each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeAlias

#: Reads the newest positions of some rooms from the database.
Load: TypeAlias = Callable[[Sequence[int]], Awaitable[dict[int, int]]]

_MAX_ROOMS = 200_000


class NewestPositions:
    """The newest position of one kind of change in each room.

    Complete for positions after ``floor``: a room that is not noted has not changed
    since.  What is older is read from the database.  A position may be noted before
    it is on disk: that costs a reader a look in vain, while noting it late would hide it.
    """

    def __init__(self, floor: int, load: Load) -> None:
        self._floor = floor
        self._load = load
        self._newest: dict[int, int] = {}

    def note(self, room_nid: int, pos: int) -> None:
        """A room changes at ``pos``."""
        self._newest[room_nid] = max(pos, self._newest.get(room_nid, 0))
        if len(self._newest) > _MAX_ROOMS:
            self._forget_older_half()

    async def changed(self, room_nids: Collection[int], since: int) -> set[int]:
        """Those of the rooms that changed after ``since``."""
        newest = self._newest
        changed = {nid for nid in room_nids if newest.get(nid, 0) > since}
        if since < self._floor:
            stored = await self._load([nid for nid in room_nids if nid not in changed])
            changed.update(nid for nid, pos in stored.items() if pos > since)
        return changed

    def _forget_older_half(self) -> None:
        by_age = sorted(self._newest.items(), key=lambda item: item[1])
        older, newer = by_age[: _MAX_ROOMS // 2], by_age[_MAX_ROOMS // 2 :]
        self._floor = max(self._floor, older[-1][1])
        self._newest = dict(newer)
