"""Gives what is new to the destinations it is for, some in each turn of the event loop.

Whoever sends a message to a room with a thousand servers does not wait for a thousand queues,
nor does the loop; what is handed out later waits for what was before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

#: How many destinations are given something in one go: each may make a transaction of it right away.
HANDED_OUT_AT_ONCE: Final = 20


@dataclass(slots=True)
class _HandOut:
    """Something that is for many destinations, and how many of them have been given it."""

    servers: Sequence[str]
    give: Callable[[str], object]
    #: All up to here has been handed out once this has.
    pos: int
    given: int = 0

    def go_on(self, count: int) -> bool:
        """Give it to so many more; whether there are any left."""
        until = self.given + count
        for server_name in self.servers[self.given : until]:
            self.give(server_name)
        self.given = until
        return until < len(self.servers)


class HandingOut:
    """Everything that is being handed out, the oldest first."""

    def __init__(self) -> None:
        #: Everything announced up to here has been given to those it is for.
        self.reached = 0
        #: The last position there is something of.
        self.announced = 0
        #: What hands out, while there is more than can be given at once.
        self.task: asyncio.Task[None] | None = None
        self._waiting: deque[_HandOut] = deque()

    def start(self, position: int) -> None:
        """Whatever is up to ``position`` is not handed out here."""
        self.reached = self.announced = position

    def give(self, servers: Sequence[str], give: Callable[[str], object], pos: int = 0) -> None:
        """Give something to servers, in the order of what is handed out; ``pos`` is reached after that.

        Few are given it at once, and of many the first.  For the others it waits.
        """
        self.announced = max(self.announced, pos)
        if not servers and not self._waiting:
            self.reached = max(self.reached, pos)
            return
        share = _HandOut(servers, give, pos)
        if not self._waiting and not share.go_on(HANDED_OUT_AT_ONCE):
            self.reached = max(self.reached, pos)
            return
        self._waiting.append(share)
        if self.task is None:
            self.task = asyncio.create_task(self._go_on(), name="handing out")

    async def _go_on(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # those that were given something make their transactions
                if not self._waiting[0].go_on(HANDED_OUT_AT_ONCE):
                    self.reached = max(self.reached, self._waiting.popleft().pos)
        finally:
            self.task = None
