"""Relations of events that were stored before there was an index of them."""

from __future__ import annotations

import asyncio
from functools import partial

from homeserver.storage import relations
from homeserver.storage.database import Database

#: Event numbers looked at in one transaction, and how long others have their turn after it.
_AT_ONCE = 200
_PAUSE_S = 0.01


async def fill_relations(db: Database, *, at_once: int = _AT_ONCE, pause: float = _PAUSE_S) -> None:
    """Put them into the index, newest first; how far it has come is stored with each step."""
    if await relations.is_filled(db.read):
        return
    while True:
        is_more = await db.write(partial(relations.fill, limit=at_once))
        if not is_more:
            return
        await asyncio.sleep(pause)
