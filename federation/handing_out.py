"""Gives what is new to the destinations it is for, some in each turn of the event loop.

Whoever sends a message to a room with a thousand servers does not wait for a thousand queues,
nor does the loop; what is handed out later waits for what was before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

#: How many destinations make a transaction in one go of what they are given.
HANDED_OUT_AT_ONCE: Final = 20
#: And how many are given something at all: most have a transaction on its way, and it only waits there.
_LOOKED_AT_ONCE: Final = 250

#: Gives something to a server by its name; whether that makes a transaction of it right away.
Give: TypeAlias = Callable[[str], bool]


class _HandOut(msgspec.Struct):
    """Something that is for many destinations, and how many of them have been given it."""

    servers: Sequence[str]
    give: Give
    #: All up to here has been handed out once this has.
    pos: int
    given: int = 0

    def go_on(self) -> bool:
        """Give it to as many more as one go allows; whether there are any left."""
        begun = 0
        for server_name in self.servers[self.given : self.given + _LOOKED_AT_ONCE]:
            self.given += 1
            begun += self.give(server_name)
            if begun == HANDED_OUT_AT_ONCE:
                break
        return self.given < len(self.servers)


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

    def give(self, servers: Sequence[str], give: Give, pos: int = 0) -> None:
        """Give something to servers, in the order of what is handed out; ``pos`` is reached after that.

        Few are given it at once, and of many the first.  For the others it waits.
        """
        self.announced = max(self.announced, pos)
        if not servers and not self._waiting:
            self.reached = max(self.reached, pos)
            return
        share = _HandOut(servers, give, pos)
        if not self._waiting and not share.go_on():
            self.reached = max(self.reached, pos)
            return
        self._waiting.append(share)
        if self.task is None:
            self.task = asyncio.create_task(self._go_on(), name="handing out")

    async def _go_on(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # those that were given something make their transactions
                if not self._waiting[0].go_on():
                    self.reached = max(self.reached, self._waiting.popleft().pos)
        finally:
            self.task = None
