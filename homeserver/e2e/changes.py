"""Tells people of this server whose keys changed: one position, and a wake-up for whoever shares a room."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.rooms.edus import News
from homeserver.storage import cross_signing, device_lists, sharing
from homeserver.storage.database import Database
from homeserver.storage.numbers import Sequence


class KeyChanges:
    """Who changed since when, of the users somebody shares rooms with."""

    def __init__(self, db: Database, positions: Sequence, news: News) -> None:
        self._db = db
        self._positions = positions
        self._news = news
        #: Position of the newest change: whoever has seen it has nothing to look up.
        self.newest = positions.last

    def next_position(self) -> int:
        """The position of a change that is about to be written; nothing may be awaited in between."""
        self.newest = self._positions.next()
        return self.newest

    async def announce(self, user_ids: Collection[str]) -> None:
        """The keys of these users changed, which is on disk: everybody who shares a room may see it now."""
        users = list(user_ids)
        if not users:
            return
        pos = self.next_position()
        await self._db.write(lambda tx: device_lists.set_position(tx, users, pos))
        rooms = await sharing.rooms_of(self._db.scan, users)
        self._news.announce(pos, rooms=rooms, users=users)

    def announce_to(self, user_id: str, pos: int) -> None:
        """What a user sees of others' keys changed at a position, which is on disk."""
        self._news.announce(pos, users=(user_id,))

    async def since(self, user_id: str, pos: int) -> set[str]:
        """Users whose keys, or whose signatures by this user, changed after a position.

        Of others only those who share a room with the user.
        """
        if self.newest <= pos:
            return set()
        changed = set(await device_lists.changed_for(self._db.scan, user_id, pos))
        return changed.union(await cross_signing.signed_since(self._db.scan, user_id, pos))
