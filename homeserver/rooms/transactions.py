"""Sending once: the same request of a device, repeated, leads to the same event.

The event and the transaction id that led to it are stored together, so that a repeated
request is recognised after a restart; requests that race are told apart in memory.
Specification: client-server API, "Transaction identifiers".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from homeserver.clock import Clock
from homeserver.rooms.recent_transactions import RecentTransactions
from homeserver.rooms.send import AlsoFor
from homeserver.rooms.used_ids import UsedIds
from homeserver.storage import transaction_ids
from homeserver.storage.append import Also
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.transaction_ids import SentAs


class Transactions:
    """Recognises repeated requests."""

    def __init__(self, db: Database, clock: Clock, recent: RecentTransactions) -> None:
        self._db = db
        self._clock = clock
        self._recent = recent
        self._used = UsedIds(db)
        #: Not a task for each: nothing but the end of the server gives a request up half way.
        self._under_way: dict[tuple[str, str, str, str], asyncio.Future[str]] = {}

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
        while (same := self._under_way.get(key)) is not None:
            try:
                return await asyncio.shield(same)
            except asyncio.CancelledError:
                if not same.cancelled() or _is_cancelled():
                    raise
                # Only the request that came first was given up: now it is this one's turn.
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._under_way[key] = answer
        try:
            made = await self._make(key, make)
        except BaseException as error:
            _fail(answer, error)
            raise
        else:
            answer.set_result(made)
            return made
        finally:
            # In one step: a request that is not under way any more is in the database, and known to be.
            del self._under_way[key]
            self._used.note(*key)

    async def _make(
        self, key: tuple[str, str, str, str], make: Callable[[Callable[[str], Also]], Awaitable[str]]
    ) -> str:
        if await self._used.may_be_used(*key):
            known = await transaction_ids.event_id(self._db.read, *key)
            if known is not None:
                return known

        def remember(made: str) -> Also:
            _, device_id, _, txn_id = key
            self._recent.note(made, device_id, txn_id)
            return SentAs(*key, event_id=made, now=self._clock.now_ms())

        return await make(remember)


def _is_cancelled() -> bool:
    """Whether the task that runs has been asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fail(answer: asyncio.Future[str], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        answer.cancel()
    else:
        answer.set_exception(error)
        answer.exception()  # as a rule nobody else waits for it
