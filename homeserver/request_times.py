"""How long requests took: a Prometheus histogram by method, route and kind of status.

``prometheus_client`` has histograms of its own, which take two locks and look at every bound for each
request.  Only the event loop's thread counts here, so that a request costs two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

#: In seconds; long polls end at 30 and more.
_BOUNDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, INF)
_LABELS: Final = ("method", "route", "status")


class _Series:
    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        #: How many requests were not done by the bound before, but by this one.
        self.counts = [0] * len(_BOUNDS)
        self.seconds = 0.0


class RequestTimes(Collector):
    """Counts requests, as many series as there are routes; register it with a registry."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], _Series] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        key = (method, route, status // 100)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.counts[bisect_left(_BOUNDS, seconds)] += 1
        series.seconds += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it is now."""
        family = HistogramMetricFamily(
            "inglenook_request_seconds", "Time to answer a request, long polls included", labels=_LABELS
        )
        for (method, route, kind), series in self._series.items():
            done = zip(map(floatToGoString, _BOUNDS), accumulate(series.counts), strict=True)
            family.add_metric((method, route, f"{kind}xx"), list(done), series.seconds)
        yield family
