"""Hands a transaction to its destination, and draws the conclusions from the answer.

A transaction that a server refuses is taken apart until it is known what the server will not take, and
that alone is given up.  Whatever else goes wrong is a failure of the destination, which loses nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from federation.outgoing import Outgoing, Transaction
from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.storage import destinations, outbox
from homeserver.storage.database import Database
from homeserver.storage.database import Transaction as Write

_log = structlog.get_logger()


class SendsTransactions(Protocol):
    """Delivers transactions (``FederationClient``)."""

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        """What became of each PDU; raises ``RemoteError``."""
        ...


class Delivery:
    """Delivers, and stores what that led to."""

    def __init__(self, *, db: Database, client: SendsTransactions, clock: Clock) -> None:
        self._db = db
        self._client = client
        self._clock = clock

    async def deliver(self, outgoing: Outgoing, transaction: Transaction) -> None:
        """Send a transaction; the destination is a step further or fails when this returns."""
        outgoing.tried_at = self._clock.monotonic()
        try:
            results = await self._client.send_transaction(
                outgoing.server_name, transaction.transaction_id, transaction.body
            )
        except RemoteError as error:
            if not _refuses(error):
                await self._failed(outgoing, error)
                return
            if transaction.size > 1 and not outgoing.single:
                # Something in it is not liked: find out what, one by one.
                outgoing.at_most = 1
                outgoing.forget_on_its_way()
                return
            _log.warning("transaction refused", destination=outgoing.server_name, reason=error.message)
        else:
            _log_refused(outgoing.server_name, results)
        await self._delivered(outgoing, transaction)

    async def _delivered(self, outgoing: Outgoing, transaction: Transaction) -> None:
        progress = transaction.progress
        outgoing.accepted(progress)
        row, outbox_pos = outgoing.row(), progress.outbox_pos
        if outbox_pos is None and progress.caught_up_pos is None and not outgoing.stored_as_failing:
            return
        outgoing.stored_as_failing = False

        async def store(tx: Write) -> None:
            if outbox_pos is not None:
                await outbox.remove_upto(tx, row.server_name, outbox_pos)
            await destinations.put(tx, row)

        await self._db.write(store)

    async def _failed(self, outgoing: Outgoing, error: RemoteError) -> None:
        outgoing.failed(self._clock.now_ms(), random.random(), error.retry_after_ms)
        _log.info(
            "destination fails",
            destination=outgoing.server_name,
            failures=outgoing.failures,
            reason=error.message,
        )
        row = outgoing.row()
        outgoing.stored_as_failing = True
        await self._db.write(partial(destinations.put, destination=row))


def _refuses(error: RemoteError) -> bool:
    """Whether a server did not like a transaction, rather than not being there or not being one at all."""
    return error.status == 413 or (error.status == 400 and error.errcode is not None)


def _log_refused(destination: str, results: Mapping[str, Any]) -> None:
    refused = {
        event_id: result["error"]
        for event_id, result in results.items()
        if isinstance(result, dict) and "error" in result
    }
    if refused:
        event_id, reason = next(iter(refused.items()))
        _log.info(
            "events refused by peer",
            destination=destination,
            events=len(refused),
            event_id=event_id,
            reason=str(reason)[:200],
        )
