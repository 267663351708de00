"""What looking things up at other servers needs: patience with an end, and restraint."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec

from homeserver.clock import Clock
from homeserver.lookups import Recent

_FIRST_PAUSE_S = 2.0


async def wait_at_most(seconds: float, work: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all of it has ended, or so long; raises what any of it raised."""
    if work:
        done, _ = await asyncio.wait(work, timeout=seconds)
        for each in done:
            each.result()


class _Asked(msgspec.Struct):
    at: float
    #: Until it is asked again if it does not answer, in seconds.
    pause: float
    for_names: set[str] = msgspec.field(default_factory=set)
    answered: bool = False
    again: bool = False


class Restraint:
    """Says whether a server may be asked again: after ``seconds``, and for a new name once before.

    One that does not answer may be asked again sooner, for it may just be starting: each time
    after twice as long as before.  A server that has answered just now and is said to have
    something else since is worth a second question; more than that would let anybody have it
    asked at will.
    """

    def __init__(self, clock: Clock, seconds: float, size: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._asked: Recent[str, _Asked] = Recent(size)

    def allows(self, server_name: str, names: Collection[str]) -> bool:
        """Whether to ask for names nothing is known of; if so, the server counts as asked."""
        now = self._clock.monotonic()
        last = self._asked.get(server_name)
        if last is None or now >= last.at + (self._seconds if last.answered else last.pause):
            longer = _FIRST_PAUSE_S if last is None or last.answered else min(2 * last.pause, self._seconds)
            self._asked.put(server_name, _Asked(now, longer, set(names)))
            return True
        if last.again or not last.answered or last.for_names.issuperset(names):
            return False
        last.again = True
        last.for_names.update(names)
        return True

    def answered(self, server_name: str) -> None:
        """The server has answered what it was asked last."""
        last = self._asked.get(server_name)
        if last is not None:
            last.answered = True
