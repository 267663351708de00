"""Searching messages, wired: the index, and who looks into it."""

from __future__ import annotations

import msgspec

from homeserver.config.search import Search as SearchSettings
from homeserver.core import Core
from homeserver.reading import Reading
from homeserver.search.context import Contexts
from homeserver.search.index import SearchIndex, discard
from homeserver.search.search import Search


class Searching(msgspec.Struct, frozen=True, kw_only=True):
    """What finds texts and what is around them."""

    index: SearchIndex
    search: Search
    contexts: Contexts


async def open_searching(
    core: Core, reading: Reading, settings: SearchSettings | None = None
) -> Searching | None:
    """Wire it and go on indexing, before anything is written.

    Where searching is off, there is none, and an index that was there is removed.
    """
    if settings is not None and not settings.enabled:
        core.background.start(discard(core.db), "removal of the search index")
        return None
    index = SearchIndex(core.db, core.notifier, core.clock)
    await index.open()
    core.background.start(index.run(), "search index")
    return Searching(
        index=index,
        search=Search(
            db=core.db,
            rooms=core.rooms,
            visibility=reading.visibility,
            ignored=reading.ignored,
            index=index,
        ),
        contexts=Contexts(core.db, core.states, reading.visibility, reading.ignored),
    )
