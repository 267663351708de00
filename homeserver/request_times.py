"""How long requests took: a histogram by method, route and kind of status."""

from __future__ import annotations

from math import inf
from typing import Final

from homeserver.histogram import Histogram

#: In seconds; long polls end at 30 and more.
_BOUNDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, inf)


class RequestTimes:
    """Counts requests, as many series as there are routes."""

    def __init__(self) -> None:
        #: By method, route and the first digit of the status.
        self.series: dict[tuple[str, str, int], Histogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        key = (method, route, status // 100)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Histogram(_BOUNDS)
        series.observe(seconds)
