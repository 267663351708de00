"""Letting go of uploads that no event names any more (none that this server can read).

Only of those that an event of their uploader named once: what is used in encrypted messages alone,
or was never sent, is nobody's business here.  Avatars, and what profiles and account data name,
stay as long as they do.  What is to be done stands in the database before it is begun, so that
nothing is forgotten when the server stops in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

from homeserver.clock import Clock
from homeserver.media.files import Files
from homeserver.storage import event_media as storage
from homeserver.storage.database import Database

#: Looked at in one transaction.
_AT_ONCE: Final = 100
#: How long until what an account named is looked at again: nobody says when it ceases to.
_HELD_MS: Final = 24 * 3600 * 1000
#: Event numbers looked at in one transaction, and how long others have their turn after it.
_FILLED_AT_ONCE: Final = 200
_PAUSE_S: Final = 0.01


async def fill_names(
    db: Database, server_name: str, *, at_once: int = _FILLED_AT_ONCE, pause: float = _PAUSE_S
) -> None:
    """Index what events name that were stored before there was an index; each step is stored."""
    if await storage.is_filled(db.read):
        return
    while True:
        is_more = await db.write(partial(storage.fill, server_name=server_name, limit=at_once))
        if not is_more:
            return
        await asyncio.sleep(pause)


class ForsakenMedia:
    """Deletes it.

    ``enabled`` is whether to; ``kept`` are ids that stay whatever happens; ``dropped`` is told of
    files before they are deleted.
    """

    def __init__(
        self,
        *,
        db: Database,
        files: Files,
        clock: Clock,
        server_name: str,
        enabled: bool,
        kept: Collection[str],
        dropped: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._server_name = server_name
        self._enabled = enabled
        self._kept = frozenset(kept)
        self._dropped = dropped
        self._filled = False

    async def round(self) -> None:
        """Let go of what is forsaken by now, and delete the files of what was let go before."""
        if self._enabled and await self._is_filled():
            while await self._look():
                pass
        while discarded := await storage.discarded(self._db.read, _AT_ONCE):
            await self._dropped(discarded)
            await self._files.remove(discarded)
            await self._db.write(partial(storage.forget_discarded, file_ids=discarded))

    async def _is_filled(self) -> bool:
        # Before, an event that nobody has looked at yet may name it.
        self._filled = self._filled or await storage.is_filled(self._db.read)
        return self._filled

    async def _look(self) -> bool:
        """Look at some; whether there were any."""
        due = await storage.forsaken(self._db.read, self._clock.now_ms(), _AT_ONCE)
        if due:
            unnamed = set(due) - await storage.named(self._db.read, due)
            held = unnamed & self._kept
            if unnamed:
                held |= await storage.named_by_accounts(self._db.scan, self._server_name, unnamed)
            until = self._clock.now_ms() + _HELD_MS
            await self._db.write(
                partial(storage.let_go, media_ids=[each for each in due if each not in held])
            )
            await self._db.write(partial(storage.put_off, media_ids=held, due=until))
        return bool(due)
