"""Sending once: the same request of a device, repeated, leads to the same event.

The event and the transaction id that led to it are stored together, so that a repeated
request is recognised after a restart; requests that race are told apart in memory.
Specification: client-server API, "Transaction identifiers".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from homeserver.clock import Clock
from homeserver.rooms.send import AlsoFor
from homeserver.storage import transaction_ids
from homeserver.storage.append import Also
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent


class Transactions:
    """Recognises repeated requests."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._under_way: dict[tuple[str, str, str, str], asyncio.Task[str]] = {}

    async def once(
        self,
        user_id: str,
        device_id: str,
        scope: str,
        txn_id: str,
        send: Callable[[AlsoFor], Awaitable[StoredEvent]],
    ) -> str:
        """The id of the event that a request leads to, which ``send`` is asked for the first time only.

        ``scope`` is the endpoint with its path parameters.  ``send`` must pass what it is
        given on to ``Send.send``.  A request that failed may be repeated.
        """

        async def make(remember: Callable[[str], Also]) -> str:
            return (await send(lambda event: remember(event.event_id))).id

        return await self.once_for(user_id, device_id, scope, txn_id, make)

    async def once_for(
        self,
        user_id: str,
        device_id: str,
        scope: str,
        txn_id: str,
        make: Callable[[Callable[[str], Also]], Awaitable[str]],
    ) -> str:
        """The id of whatever a request leads to, for the first time of which ``make`` is asked.

        ``make`` is given what remembers an id, to be part of the transaction that stores what has it.
        """
        key = (user_id, device_id, scope, txn_id)
        task = self._under_way.get(key)
        if task is None:
            # A task of its own: when the client hangs up, another request may be waiting for the same.
            task = asyncio.ensure_future(self._make(key, make))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def _make(
        self, key: tuple[str, str, str, str], make: Callable[[Callable[[str], Also]], Awaitable[str]]
    ) -> str:
        known = await transaction_ids.event_id(self._db.read, *key)
        if known is not None:
            return known

        def remember(made: str) -> Also:
            now = self._clock.now_ms()
            user_id, device_id, scope, txn_id = key
            return partial(
                transaction_ids.add,
                user_id=user_id,
                device_id=device_id,
                scope=scope,
                txn_id=txn_id,
                event_id=made,
                now=now,
            )

        return await make(remember)
