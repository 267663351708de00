"""Fetching what other servers keep: now for who waits, later with patience for nobody in particular.

A user is fetched once at a time, however many ask.  Those for later wait in a bounded queue; a
server that fails is left alone for longer and longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.protocol.ids import server_name_of
from homeserver.tasks import Background

_log = structlog.get_logger()

MAX_WAITING = 10_000
_AT_ONCE = 8
_FIRST_DELAY_S = 10.0
_LONGEST_DELAY_S = 3600.0
_MAX_SERVERS = 10_000


class _Patience(msgspec.Struct):
    failures: int = 0
    retry_at: float = 0.0


class Fetching:
    """Runs ``fetch(user_id)``, which raises ``RemoteError``."""

    def __init__(self, fetch: Callable[[str], Awaitable[None]], background: Background, clock: Clock) -> None:
        self._fetch = fetch
        self._background = background
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Fetched while something changed: what came may lack it.
        self._disturbed: set[str] = set()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._servers: OrderedDict[str, _Patience] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    async def now(self, user_id: str) -> None:
        """Fetch a user, or wait for who does it already; raises ``RemoteError``."""
        task = self._running.get(user_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._run(user_id))
            self._running[user_id] = task
            task.add_done_callback(lambda done: self._ended(user_id, done))
        await asyncio.shield(task)

    def later(self, user_ids: Iterable[str]) -> None:
        """Fetch users in the background until it works."""
        for user_id in user_ids:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[user_id] = None
        self.tick()

    def disturb(self, user_id: str) -> None:
        """Something of a user changed: if it is being fetched, that has to be done again."""
        if user_id in self._running:
            self._disturbed.add(user_id)

    def was_disturbed(self, user_id: str) -> bool:
        """Whether ``disturb`` was called since the fetch that is going on began."""
        return user_id in self._disturbed

    def forget(self, user_id: str) -> None:
        """Nobody wants to know of a user any more."""
        self._waiting.pop(user_id, None)

    def heard_from(self, server_name: str) -> None:
        """A server spoke to this one: it may be asked at once."""
        if self._servers.pop(server_name, None) is not None:
            self.tick()

    def tick(self) -> None:
        """Go on with those whose time has come.  To be called every few seconds."""
        if self._worker is None and self._due(1):
            self._worker = self._background.start(self._work(), "fetching device lists")

    def close(self) -> None:
        """Give up what is going on."""
        for task in list(self._running.values()):
            task.cancel()

    async def _run(self, user_id: str) -> None:
        self._disturbed.discard(user_id)
        await self._fetch(user_id)

    def _ended(self, user_id: str, task: asyncio.Task[None]) -> None:
        del self._running[user_id]
        # Marks the exception as seen: with no asker left nobody else would look at it.
        failed = not task.cancelled() and task.exception() is not None
        if not failed and not task.cancelled():
            self._waiting.pop(user_id, None)
        if user_id in self._disturbed:
            self._disturbed.discard(user_id)
            self.later([user_id])

    def _due(self, limit: int) -> list[str]:
        now = self._clock.monotonic()
        due: list[str] = []
        for user_id in self._waiting:
            patience = self._servers.get(server_name_of(user_id))
            if patience is None or patience.retry_at <= now:
                due.append(user_id)
                if len(due) == limit:
                    break
        return due

    async def _work(self) -> None:
        try:
            while due := self._due(_AT_ONCE):
                await asyncio.gather(*(self._try(user_id) for user_id in due))
        finally:
            self._worker = None

    async def _try(self, user_id: str) -> None:
        server_name = server_name_of(user_id)
        try:
            await self.now(user_id)
        except RemoteError as error:
            if error.reachable and not error.transient:
                _log.info("device list refused", user_id=user_id, reason=error.message)
                self._waiting.pop(user_id, None)
                return
            self._be_patient(server_name)
        else:
            self._servers.pop(server_name, None)

    def _be_patient(self, server_name: str) -> None:
        patience = self._servers.setdefault(server_name, _Patience())
        self._servers.move_to_end(server_name)
        if len(self._servers) > _MAX_SERVERS:
            self._servers.popitem(last=False)
        now = self._clock.monotonic()
        if patience.retry_at > now:
            return  # another user of the same server has just failed
        delay = min(_FIRST_DELAY_S * 2 ** min(patience.failures, 20), _LONGEST_DELAY_S)
        patience.failures += 1
        patience.retry_at = now + delay
