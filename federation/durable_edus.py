"""EDUs that have to arrive, on their way to the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from homeserver.storage import outbox
from homeserver.storage.database import Transaction
from homeserver.storage.outbox import OutboxEdu

_log = structlog.get_logger()


class DurableEdus:
    """EDUs that are stored by whoever has something to store with them, and sent when that is on disk."""

    def __init__(self, rows: Sequence[OutboxEdu], stored: Callable[[str], None]) -> None:
        self._rows = rows
        self._stored = stored

    async def store(self, tx: Transaction) -> None:
        """Put them into the outbox, as part of a transaction."""
        await outbox.add(tx, self._rows)

    def send(self) -> None:
        """They are on disk: send them."""
        for row in self._rows:
            self._stored(row.destination)

    def written(self, write: asyncio.Future[None]) -> None:
        """A write of nothing but them has ended."""
        if write.cancelled() or write.exception() is not None:
            _log.error("EDUs could not be stored", destinations=len(self._rows))
        else:
            self.send()
