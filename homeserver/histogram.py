"""Counts of what lasted how long, as Prometheus has them, without the library.

``prometheus_client`` has histograms of its own, which take two locks and look at every bound for each
observation, and a MiB for a server that nobody asks.  Only the event loop's thread counts here, so
that an observation costs two additions; ``exposition.py`` shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Histogram:
    """Observed seconds by the first of the ``bounds`` that they do not exceed; the last is infinity."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        #: The sum of what was observed.
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def up_to(self) -> list[tuple[float, int]]:
        """Each bound, and how many took no longer."""
        return list(zip(self.bounds, accumulate(self.counts), strict=True))
