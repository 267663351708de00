"""What each syncing user has to do with which rooms: read once, then kept until it changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from homeserver.rooms.room import membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import Visibility
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.notifier import Notifier

_REMEMBERED_USERS = 10_000


class UserRooms(msgspec.Struct, frozen=True, gc=False):
    """A user's memberships by room number."""

    by_room: dict[int, LocalMembership]
    joined: frozenset[int]
    #: The position of the newest change.
    newest: int

    @classmethod
    def of(cls, memberships: Iterable[LocalMembership]) -> UserRooms:
        by_room = {membership.room_nid: membership for membership in memberships}
        joined = frozenset(nid for nid, membership in by_room.items() if membership.membership == "join")
        newest = max((membership.pos for membership in by_room.values()), default=0)
        return cls(by_room, joined, newest)


class Memberships:
    """The memberships of users who sync."""

    def __init__(self, db: Database, rooms: Rooms, visibility: Visibility, notifier: Notifier) -> None:
        self._db = db
        self._rooms = rooms
        self._visibility = visibility
        self._known: OrderedDict[str, UserRooms] = OrderedDict()
        self._loading: dict[str, object] = {}
        notifier.user_listeners.append(self._forget)

    async def of(self, user_id: str) -> UserRooms:
        """A user's memberships as they are on disk, which may be ahead of what was announced."""
        known = self._known.get(user_id)
        if known is not None:
            self._known.move_to_end(user_id)
            return known
        mark = self._loading[user_id] = object()
        loaded = UserRooms.of(await room_storage.local_memberships_of(self._db.read, user_id))
        if self._loading.get(user_id) is mark:  # nothing changed while it was read
            del self._loading[user_id]
            self._known[user_id] = loaded
            if len(self._known) > _REMEMBERED_USERS:
                self._known.popitem(last=False)
        return loaded

    async def at(self, user_id: str, now: int) -> UserRooms:
        """A user's memberships as they were at an announced position."""
        known = await self.of(user_id)
        if known.newest <= now:
            return known
        at_now = [
            membership if membership.pos <= now else await self._before(membership, now)
            for membership in known.by_room.values()
        ]
        return UserRooms.of(membership for membership in at_now if membership is not None)

    async def _before(self, newer: LocalMembership, now: int) -> LocalMembership | None:
        """What a membership that changed after ``now`` was then; the room's state knows."""
        room = await self._rooms.by_nid(newer.room_nid)
        found = await self._visibility.membership_at(room, newer.user_id, now)
        if found is None:
            return None
        pos, stored = found
        return LocalMembership(
            newer.user_id, room.nid, membership_of(stored), stored.nid, stored.event.sender, pos
        )

    def _forget(self, users: Iterable[str]) -> None:
        for user_id in users:
            self._known.pop(user_id, None)
            self._loading.pop(user_id, None)
