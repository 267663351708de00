"""The counters in Prometheus' text format.

Loaded when they are first asked for: many servers never are, and the library takes along an HTTP
server of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from homeserver.histogram import Histogram
from homeserver.request_times import RequestTimes
from homeserver.stalls import Stalls

if TYPE_CHECKING:
    from homeserver.health import Metrics

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


async def exposition(metrics: Metrics) -> bytes:
    """All counters as they are now, those of the process and its garbage collector among them.

    A server has so many routes that writing them out takes some 30 ms, which a thread does.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Ours(metrics))
    return await asyncio.to_thread(generate_latest, registry)


class _Ours(Collector):
    """What is begun anew by being asked for is taken at once, in the loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.requests
        self._others = [*_others(metrics)]

    def collect(self) -> Iterator[Metric]:
        yield request_seconds(self._requests)
        yield from self._others


def _others(metrics: Metrics) -> Iterator[Metric]:
    events = CounterMetricFamily("inglenook_events", "Events that became part of a room", labels=["origin"])
    for origin, count in metrics.events.items():
        events.add_metric([origin], count)
    yield events
    yield from stall_seconds(metrics.stalls)
    streams = GaugeMetricFamily("inglenook_live_streams", "Open streams to clients", labels=["transport"])
    for transport, count in metrics.live_streams().items():
        streams.add_metric([transport], count)
    yield streams


def request_seconds(times: RequestTimes) -> Metric:
    """How long requests took."""
    family = HistogramMetricFamily(
        "inglenook_request_seconds",
        "Time to answer a request, long polls included",
        labels=["method", "route", "status"],
    )
    # Copied in one step, for the loop's thread adds to it.
    for (method, route, kind), series in list(times.series.items()):
        _add(family, [method, route, f"{kind}xx"], series)
    return family


def stall_seconds(stalls: Stalls) -> Iterator[Metric]:
    """What held the event loop up; the worst of it begins anew."""
    lag = HistogramMetricFamily(
        "inglenook_event_loop_lag_seconds",
        "How late a timer of the event loop was, twenty times a second",
        labels=(),
    )
    _add(lag, [], stalls.lag)
    yield lag
    yield GaugeMetricFamily(
        "inglenook_event_loop_lag_max_seconds",
        "The latest that a timer of the event loop was since this was last asked for",
        value=stalls.take_worst(),
    )
    held = HistogramMetricFamily(
        "inglenook_event_loop_held_seconds",
        "How much of that the thread of the event loop was at work",
        labels=(),
    )
    _add(held, [], stalls.held)
    yield held
    yield GaugeMetricFamily(
        "inglenook_event_loop_held_max_seconds",
        "The longest that the thread of the event loop was at work while the timer was due,"
        " since this was last asked for",
        value=stalls.take_longest(),
    )
    pauses = HistogramMetricFamily(
        "inglenook_gc_pause_seconds",
        "How long the garbage collector held everything up, by generation",
        labels=["generation"],
    )
    for generation, series in enumerate(stalls.pauses):
        _add(pauses, [str(generation)], series)
    yield pauses


def _add(family: HistogramMetricFamily, labels: list[str], series: Histogram) -> None:
    buckets = [(_text(bound), count) for bound, count in series.up_to()]
    family.add_metric(labels, buckets, series.seconds)


def _text(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]
