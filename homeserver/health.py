"""What operators and their machines ask: is the server well, and what has it been doing.

``GET /_inglenook/health`` answers 200 or 503 with a reason; ``GET /_inglenook/metrics``
has the counters in Prometheus' text format.  Neither says anything about people or rooms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from homeserver.live import TRANSPORTS
from homeserver.replies import Json, Reply, Text
from homeserver.request_times import RequestTimes
from homeserver.rooms.announcement import NewEvents
from homeserver.stalls import Stalls
from homeserver.storage import health as health_storage
from homeserver.storage.database import Database
from homeserver.web import Access, Request, Route

#: A database that does not answer for so long is not well.
_PATIENCE_S = 5.0


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = RequestTimes()
        self.registry.register(self._requests)
        #: Told of every answered request: method, route, status and seconds.
        self.observe_request = self._requests.observe
        self._events = Counter(
            "inglenook_events", "Events that became part of a room", ["origin"], registry=self.registry
        )
        self._local_events, self._remote_events = self._events.labels("local"), self._events.labels("remote")
        self.stalls = Stalls(self.registry)

    def watch_live_streams(self, open_streams: Mapping[str, int]) -> None:
        """Show how many streams are open, by transport."""
        gauge = Gauge(
            "inglenook_live_streams", "Open streams to clients", ["transport"], registry=self.registry
        )
        for transport in TRANSPORTS:
            gauge.labels(transport).set_function(partial(_number, open_streams, transport))

    def count_events(self, news: NewEvents) -> None:
        """Count events: a listener of the notifier."""
        for stored in news.events:
            (self._local_events if stored.sent_here else self._remote_events).inc()


class Health:
    """The operators' endpoints."""

    def __init__(self, db: Database, metrics: Metrics) -> None:
        self._db = db
        self._metrics = metrics

    def health_routes(self) -> list[Route]:
        """The row of a listener that serves ``health``."""
        return [Route("GET", "/_inglenook/health", self.health, access=Access.PUBLIC)]

    def metrics_routes(self) -> list[Route]:
        """The row of a listener that serves ``metrics``."""
        return [Route("GET", "/_inglenook/metrics", self.metrics, access=Access.PUBLIC)]

    async def health(self, _: Request) -> Reply:
        """Whether the database can be written to."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._db.write(health_storage.touch)
        except Exception as error:  # whatever is wrong, the answer is that it is
            return Json(orjson.dumps({"status": "unwell", "reason": type(error).__name__}), status=503)
        return {"status": "ok"}

    async def metrics(self, _: Request) -> Reply:
        """All counters."""
        return Text(generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST)


def _number(counts: Mapping[str, int], key: str) -> float:
    return counts.get(key, 0)
