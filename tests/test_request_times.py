"""The histogram of requests: it says what ``prometheus_client``'s own says."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from homeserver.exposition import request_seconds
from homeserver.request_times import RequestTimes

seconds = st.floats(0, 100) | st.sampled_from([0.001, 0.003, 1.0, 60.0, 60.1])
requests = st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from([200, 204, 404]), seconds))


class _Shown(Collector):
    def __init__(self, times: RequestTimes) -> None:
        self._times = times

    def collect(self) -> Iterable[Metric]:
        yield request_seconds(self._times)


def lines(registry: CollectorRegistry) -> set[str]:
    text = generate_latest(registry).decode()
    return {line for line in text.splitlines() if "_created" not in line}


@given(requests)
def test_it_reads_like_the_reference(observed: list[tuple[str, int, float]]) -> None:
    ours, reference = CollectorRegistry(), CollectorRegistry()
    times = RequestTimes()
    ours.register(_Shown(times))
    histogram = Histogram(
        "inglenook_request_seconds",
        "Time to answer a request, long polls included",
        ["method", "route", "status"],
        registry=reference,
        buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
    )
    for route, status, took in observed:
        times.observe("GET", route, status, took)
        histogram.labels("GET", route, f"{status // 100}xx").observe(took)
    assert lines(ours) == lines(reference)
