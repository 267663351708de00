"""Asking notaries for the keys of servers that do not give them themselves, many servers at a time.

What a notary answers is handed on unchecked: to believe it is the keyring's.
Specification: server-server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import structlog

from federation.lookups import Restraint, wait_at_most
from homeserver.clock import Clock
from homeserver.errors import RemoteError

_log = structlog.get_logger()

#: Servers in one question.
BATCH: Final = 100
#: Notaries are not asked again for the keys of one server for so long.
RETRY_SECONDS: Final = 60

_PARALLEL: Final = 4
#: A notary may answer with one object for each key of a server.
_MAX_ANSWERS: Final = 10 * BATCH
_REMEMBERED_SERVERS: Final = 10_000

#: Servers, their key ids, and the time (ms since the epoch) each key must be valid at.
Wanted: TypeAlias = Mapping[str, Mapping[str, int]]
#: Takes in what a notary says of a server.
Take: TypeAlias = Callable[[str, str, Mapping[str, Any]], Awaitable[None]]


class Notaries:
    """Asks the notaries called ``names``, one after the other.

    ``query`` asks one (``RemoteError``).  Each answer is given to ``take`` with the names of
    notary and server; ``still_missing`` says what is left to ask the next one for.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        query: Callable[[str, Wanted], Awaitable[Sequence[Mapping[str, Any]]]],
        take: Take,
        still_missing: Callable[[Wanted], Awaitable[Wanted]],
        clock: Clock,
    ) -> None:
        self._names = names
        self._query = query
        self._take = take
        self._still_missing = still_missing
        self._asked = Restraint(clock, RETRY_SECONDS, _REMEMBERED_SERVERS)
        #: The question that each server is part of.
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(_PARALLEL)

    async def ask(self, wanted: Wanted, deadline: float) -> None:
        """Ask for keys, and wait for the answers at most ``deadline`` seconds."""
        if not self._names:
            return
        waiting = {self._under_way[server] for server in wanted if server in self._under_way}
        fresh = [
            server
            for server, keys in wanted.items()
            if server not in self._under_way and self._asked.allows(server, keys)
        ]
        for start in range(0, len(fresh), BATCH):
            waiting.add(self._start({server: wanted[server] for server in fresh[start : start + BATCH]}))
        await wait_at_most(deadline, waiting)

    async def close(self) -> None:
        """Stop asking."""
        tasks = set(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, batch: Wanted) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ask_each(batch))
        self._under_way |= dict.fromkeys(batch, task)

        def ended(_: asyncio.Task[None]) -> None:
            for server in batch:
                del self._under_way[server]

        task.add_done_callback(ended)
        return task

    async def _ask_each(self, batch: Wanted) -> None:
        async with self._free:
            for notary in self._names:
                batch = await self._still_missing(batch)
                wanted = {server: keys for server, keys in batch.items() if server != notary}
                if wanted:
                    await self._ask_one(notary, wanted)

    async def _ask_one(self, notary: str, wanted: Wanted) -> None:
        try:
            answers = await self._query(notary, wanted)
        except RemoteError as error:
            _log.info("notary not had", notary=notary, reason=str(error))
            return
        for answer in answers[:_MAX_ANSWERS]:
            server = answer.get("server_name")
            if isinstance(server, str) and server in wanted:
                self._asked.answered(server)
                await self._take(notary, server, answer)
