"""What operators and their machines ask: is the server well, and what has it been doing.

``GET /_inglenook/health`` answers 200 or 503 with a reason; ``GET /_inglenook/metrics``
has the counters in Prometheus' text format.  Neither says anything about people or rooms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from homeserver.late import have_loaded
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
        self.requests = RequestTimes()
        #: Told of every answered request: method, route, status and seconds.
        self.observe_request = self.requests.observe
        #: Events that became part of a room, by where they come from.
        self.events = {"local": 0, "remote": 0}
        self.stalls = Stalls()
        self._open_streams: Mapping[str, int] = {}

    def watch_live_streams(self, open_streams: Mapping[str, int]) -> None:
        """Show how many streams are open, by transport."""
        self._open_streams = open_streams

    def live_streams(self) -> dict[str, int]:
        """How many streams are open, by transport."""
        return {transport: self._open_streams.get(transport, 0) for transport in TRANSPORTS}

    def count_events(self, news: NewEvents) -> None:
        """Count events: a listener of the notifier."""
        for stored in news.events:
            self.events["local" if stored.sent_here else "remote"] += 1


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
        await have_loaded("homeserver.exposition")
        from homeserver.exposition import CONTENT_TYPE, exposition  # noqa: PLC0415  see there

        return Text(await exposition(self._metrics), CONTENT_TYPE)
