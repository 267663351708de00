"""A real push gateway on a free port, which keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

PATH = "/_matrix/push/v1/notify"


@dataclass
class Gateway:
    """``answers`` with a status and a body; holds requests back while ``open`` is not set."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set by each request, before it is answered.
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most_under_way: int = 0
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def notify(self, request: web.Request) -> web.Response:
        """``POST /_matrix/push/v1/notify``."""
        notification = (await request.json())["notification"]
        self.under_way += 1
        self.asked.set()
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        async with self._arrived:
            self.requests.append(notification)
            self._arrived.notify_all()
        if self.body is not None:
            return web.Response(body=self.body, status=self.status, content_type="application/json")
        return web.json_response({"rejected": self.rejected}, status=self.status)

    @property
    def events(self) -> list[str]:
        """The ids of the events it was told of, in order."""
        return [request["event_id"] for request in self.requests if "event_id" in request]

    def was_told(self, event_ids: Iterable[str]) -> bool:
        """Whether it was told of all these events."""
        return set(event_ids) <= set(self.events)

    @property
    def badges(self) -> list[int]:
        """The counts it was told by themselves."""
        return [request["counts"]["unread"] for request in self.requests if "event_id" not in request]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of what has arrived."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(holds)


@asynccontextmanager
async def push_gateway() -> AsyncIterator[Gateway]:
    """A gateway that answers."""
    gateway = Gateway()
    gateway.open.set()
    app = web.Application()
    app.router.add_post(PATH, gateway.notify)
    async with TestServer(app) as server:
        gateway.url = str(server.make_url(PATH))
        yield gateway
        gateway.open.set()
