"""The newest changes of a room's state, kept with the room: states of late need no look at the disk.

Most rooms have had so few changes that this is all of their log.  What is here may be ahead
of the disk like the rest of the room; whoever asks for positions that were announced does not
see that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from homeserver.storage.state import NO_EVENT, StateChange

#: How many changes a room keeps at hand.
MOST = 64


class RecentChanges:
    """The changes of one epoch, complete for versions after ``after``."""

    __slots__ = ("_changes", "after")

    def __init__(self, after: int, changes: Sequence[StateChange] = ()) -> None:
        self.after = after
        #: Oldest first.
        self._changes = deque(changes)

    @property
    def is_whole(self) -> bool:
        """Whether these are all changes there ever were."""
        return self.after == 0

    def note(self, changes: Sequence[StateChange]) -> None:
        """Add the changes of a new version; the oldest go, those of one version together."""
        self._changes.extend(changes)
        while len(self._changes) > MOST:
            self.after = self._changes.popleft().ver
            while self._changes and self._changes[0].ver == self.after:
                self._changes.popleft()

    def between(self, after: int, upto: int) -> list[StateChange]:
        """The changes in ``(after, upto]``, oldest first, for an ``after`` not before ours."""
        found = []
        for change in reversed(self._changes):
            if change.ver <= after:
                break
            if change.ver <= upto:
                found.append(change)
        return found[::-1]

    def of_key(self, key_nid: int, after: int) -> list[StateChange]:
        """The changes of one key in later versions than ``after``, oldest first."""
        return [change for change in self._changes if change.key_nid == key_nid and change.ver > after]

    def value_at(self, key_nid: int, ver: int) -> int | None:
        """The event a key had at a version, or ``NO_EVENT``; ``None`` where the disk has to tell."""
        if ver < self.after:
            return None
        before: StateChange | None = None
        for change in self._changes:
            if change.key_nid != key_nid:
                continue
            if change.ver > ver:
                return change.prev_event_nid if before is None else before.event_nid
            before = change
        if before is not None:
            return before.event_nid
        return NO_EVENT if self.is_whole else None
