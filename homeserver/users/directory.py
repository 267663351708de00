"""Searching for users.

Finds those whom the searcher may know of anyway: who is in a room with them, or in one that is open to
all.  Nobody finds themselves, users they ignore, or accounts that are closed.  Specification:
client-server API, "User Directory".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from homeserver.protocol.ids import server_of
from homeserver.protocol.search_words import Search, fits, parse_search, rank
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.storage import user_directory, users
from homeserver.storage.database import Database
from homeserver.storage.user_directory import Entry

MAX_LIMIT = 50
#: Candidates of one step, and how many are looked at in one search.
_PAGE = 200
_MAX_CANDIDATES = 5_000
#: Who fits best is found among so many of each kind.
_ENOUGH = 100
#: How long a search waits for what happened before it to be in the directory, in seconds.
_PATIENCE_S = 1.0


class Reader(Protocol):
    """Brings the directory up to date; ``users/directory_reader.py`` fulfils it."""

    async def settled(self, seconds: float) -> None:
        """Wait until everything that has happened is read, at most for so long."""
        ...


class UserDirectory:
    """Finds users; with ``search_all_users`` all that are known, else those the searcher may know of."""

    def __init__(
        self,
        *,
        db: Database,
        reader: Reader,
        ignored: IgnoredUsers,
        server_name: str,
        search_all_users: bool,
    ) -> None:
        self._db = db
        self._reader = reader
        self._ignored = ignored
        self._server_name = server_name
        self._search_all_users = search_all_users

    async def search(self, searcher: str, term: str, limit: int) -> tuple[list[Entry], bool]:
        """Those who fit a search term best, at most ``limit``, and whether there are more."""
        search = parse_search(term)
        if not search.words:
            return [], False
        # Whoever joined a second ago can be found; a large room that is being read holds up nobody.
        await self._reader.settled(_PATIENCE_S)
        not_shown = {searcher, *await self._ignored.by(searcher)}
        found: list[Entry] = []
        for is_remote in (False, True):
            found += await self._among(is_remote, search, searcher, not_shown)
        found.sort(key=lambda one: rank(search, one.user_id, one.display_name, is_remote=one.is_remote))
        return found[:limit], len(found) > limit

    async def _among(
        self, is_remote: bool, search: Search, searcher: str, not_shown: Collection[str]
    ) -> list[Entry]:
        """The users of this server, or of others, who fit; not more than are needed to choose from."""
        # The longest word has the fewest users as a rule.
        beginning = max(search.words, key=len)
        found: dict[str, Entry] = {}
        after, seen = ("", ""), 0
        while len(found) < _ENOUGH and seen < _MAX_CANDIDATES:
            page = await user_directory.beginning_with(self._db.scan, is_remote, beginning, after, _PAGE)
            new = {user_id for _, user_id in page} - found.keys() - set(not_shown)
            found |= await self._shown(new, search, searcher)
            seen += len(page)
            if len(page) < _PAGE:
                break
            after = page[-1]
        return list(found.values())

    async def _shown(self, user_ids: Collection[str], search: Search, searcher: str) -> dict[str, Entry]:
        """Those of some candidates who fit and may be shown."""
        entries = await user_directory.entries(self._db.scan, user_ids)
        fitting = {
            user_id: entry for user_id, entry in entries.items() if fits(search, user_id, entry.display_name)
        }
        if fitting and not self._search_all_users:
            visible = await user_directory.visible_to(self._db.scan, list(fitting), searcher)
            fitting = {user_id: entry for user_id, entry in fitting.items() if user_id in visible}
        local = [user_id for user_id in fitting if server_of(user_id) == self._server_name]
        active = await users.active_among(self._db.scan, local) if local else set()
        return {user_id: entry for user_id, entry in fitting.items() if entry.is_remote or user_id in active}
