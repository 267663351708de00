"""Who may look at the web now: few at once, fewer for one user, and none that would wait too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from homeserver.errors import limit_exceeded

_RETRY_AFTER_MS: Final = 5_000


class _Line(msgspec.Struct):
    slots: asyncio.Semaphore
    length: int = 0


class Turns:
    """Lets ``at_once`` pieces of work go on, ``each`` of them for one user.

    Of one user's, at most ``line`` go on or wait; beyond it ``M_LIMIT_EXCEEDED``.
    """

    def __init__(self, *, at_once: int = 32, each: int = 6, line: int = 60) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._each = each
        self._line = line
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, user_id: str) -> AsyncIterator[None]:
        """Waits until it is this user's turn, which lasts as long as the context."""
        line = self._lines.setdefault(user_id, _Line(asyncio.Semaphore(self._each)))
        if line.length >= self._line:
            raise limit_exceeded(_RETRY_AFTER_MS)
        line.length += 1
        try:
            # Of one user's no more than a few stand in the line of all.
            async with line.slots, self._slots:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[user_id]
