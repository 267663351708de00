"""How long everybody waits for something that does not give the event loop its turn.

A timer of the loop is due twenty times a second; how late it comes is how long a request would
have waited to be looked at.  That may be for want of a processor; what the loop's thread worked
itself in that time, and so held everybody up, is told apart.  So are pauses of the garbage
collector, one of the causes.
"""

from __future__ import annotations

import asyncio
import gc
from math import inf
from time import perf_counter, thread_time
from typing import Any, Final

import structlog

from homeserver.histogram import Histogram

_log = structlog.get_logger()

_PERIOD_S: Final = 0.05
#: What is logged, for somebody noticed.
_LONG_S: Final = 1.0
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, inf)


class Stalls:
    """Measures from ``start`` until ``stop``."""

    def __init__(self) -> None:
        #: How late a timer of the event loop was.
        self.lag = Histogram(_BOUNDS)
        #: How much of that the thread of the event loop was at work.
        self.held = Histogram(_BOUNDS)
        #: How long the garbage collector held everything up, by generation.
        self.pauses = [Histogram(_BOUNDS) for _ in range(3)]
        self._worst = self._longest = 0.0
        self._due = self._worked = 0.0
        self._collecting_since = 0.0
        self._timer: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin with the next turn of the running loop."""
        gc.callbacks.append(self._collector)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_soon(self._wait, loop)

    def stop(self) -> None:
        """End; to be called once."""
        gc.callbacks.remove(self._collector)
        if self._timer is not None:
            self._timer.cancel()

    def take_worst(self) -> float:
        """The latest that a timer was since this was last asked for, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst

    def take_longest(self) -> float:
        """The longest that the loop's thread was at work while a timer was due, likewise."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._worked = thread_time()
        self._due = loop.time() + _PERIOD_S
        self._timer = loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        late = max(0.0, loop.time() - self._due)
        self.lag.observe(late)
        self._worst = max(self._worst, late)
        held = min(late, thread_time() - self._worked)
        self.held.observe(held)
        self._longest = max(self._longest, held)
        if late > _LONG_S:
            _log.warning("the event loop was held up", seconds=round(late, 2))
        self._wait(loop)

    def _collector(self, phase: str, about: dict[str, Any]) -> None:
        if phase == "start":
            self._collecting_since = perf_counter()
        else:
            self.pauses[about["generation"]].observe(perf_counter() - self._collecting_since)
