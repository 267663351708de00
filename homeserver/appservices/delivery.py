"""Delivers transactions to one application service: in order, one at a time, each until it has arrived.

A service that fails is left alone for longer and longer.  What is on its way is stored,
so that it goes out again with the same number and the same content after a crash.
Specification: application service API, "Pushing events".
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import structlog

from homeserver.appservices.client import Client
from homeserver.appservices.packing import Packing
from homeserver.appservices.services import AppService
from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.storage import appservices as storage
from homeserver.storage.appservices import OnItsWay
from homeserver.storage.database import Database
from homeserver.tasks import Background

_log = structlog.get_logger()

#: Seconds until a service that has just failed is tried again, and the most it comes to.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0


class Delivery:
    """The queue to one service.  ``start`` first; ``tick`` is to be called about once a second."""

    def __init__(
        self,
        service: AppService,
        *,
        db: Database,
        client: Client,
        packing: Packing,
        clock: Clock,
        background: Background,
    ) -> None:
        self.service = service
        self._db = db
        self._client = client
        self._packing = packing
        self._clock = clock
        self._background = background
        self._on_its_way: OnItsWay | None = None
        self._newest_txn = 0
        self._failures = 0
        self._retry_at = 0.0
        self._has_news = True
        self._worker: asyncio.Task[None] | None = None

    async def start(self, newest_txn: int) -> None:
        """Go on with the transaction that was on its way when the server stopped."""
        self._newest_txn = newest_txn
        self._on_its_way = await storage.on_its_way(self._db.read, self.service.id)
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        self._has_news = True
        if self._worker is None and self._clock.monotonic() >= self._retry_at:
            self._worker = self._background.start(self._work(), f"sending to {self.service.id}")

    def tick(self) -> None:
        """Try again when the time has come."""
        if self._failures:
            self.wake()

    def is_alive(self) -> None:
        """The service has shown that it can be reached: whatever failed is tried again at once."""
        self._retry_at = 0.0
        self.tick()

    async def idle(self) -> None:
        """Wait until nothing is on its way; what failed waits for its time."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._has_news:
                self._has_news = False
                if not await self._send_all():
                    self._failed()
                    return
        except Exception:
            _log.exception("sending to an application service failed", service=self.service.id)
            self._failed()
        finally:
            self._worker = None

    async def _send_all(self) -> bool:
        """Send until nothing waits; false when the service does not take it."""
        while True:
            if self._on_its_way is None:
                self._on_its_way = await self._packing.next_transaction(self.service, self._newest_txn)
            if self._on_its_way is None:
                return True
            self._newest_txn = self._on_its_way.txn_id
            if not await self._is_taken(self._on_its_way):
                return False
            arrived = partial(storage.arrived, service_id=self.service.id, txn_id=self._on_its_way.txn_id)
            await self._db.write(arrived)
            self._on_its_way = None
            self._failures = 0

    async def _is_taken(self, transaction: OnItsWay) -> bool:
        try:
            taken = await self._client.send(self.service, transaction.txn_id, transaction.body)
        except RemoteError as error:
            _log.info("application service does not answer", service=self.service.id, reason=str(error))
            return False
        if not taken:
            _log.warning(
                "application service refuses a transaction",
                service=self.service.id,
                transaction=transaction.txn_id,
            )
        return taken

    def _failed(self) -> None:
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 30)
        self._retry_at = self._clock.monotonic() + pause
        self._has_news = True
