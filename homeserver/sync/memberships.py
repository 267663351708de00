"""What each syncing user has to do with which rooms: read once, then kept, with what changes of it.

Of a change only the rooms that it is about are read again.  Whatever else happens to a user (a
message to a device, account data, a receipt) costs nothing here.
"""

from __future__ import annotations

import asyncio
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

    def with_changed(self, changed: Iterable[LocalMembership]) -> UserRooms:
        """The same with other memberships in some rooms."""
        new = {membership.room_nid: membership for membership in changed}
        joined = {nid for nid, membership in new.items() if membership.membership == "join"}
        newest = max((membership.pos for membership in new.values()), default=0)
        return UserRooms(self.by_room | new, (self.joined - new.keys()) | joined, max(self.newest, newest))


class _Kept:
    """What is kept of a user: their memberships, and what is known to be another by now."""

    __slots__ = ("changes", "lock", "rooms")

    def __init__(self) -> None:
        self.rooms: UserRooms | None = None
        #: The rooms in which the membership changed since it was read, each with its latest change.
        self.changes: dict[int, object] = {}
        #: Held by who reads.
        self.lock = asyncio.Lock()


class Memberships:
    """The memberships of users who sync.

    A change is on disk before it is announced: what is read after an announcement has it.
    """

    def __init__(self, db: Database, rooms: Rooms, visibility: Visibility, notifier: Notifier) -> None:
        self._db = db
        self._rooms = rooms
        self._visibility = visibility
        self._known: OrderedDict[str, _Kept] = OrderedDict()
        notifier.membership_listeners.append(self._note)

    async def of(self, user_id: str) -> UserRooms:
        """A user's memberships as they are on disk, which may be ahead of what was announced."""
        kept = self._known.get(user_id)
        if kept is None:
            kept = self._known[user_id] = _Kept()
            if len(self._known) > _REMEMBERED_USERS:
                self._known.popitem(last=False)
        self._known.move_to_end(user_id)
        while kept.rooms is None or kept.changes:
            async with kept.lock:
                await self._bring_up_to_date(user_id, kept)
        return kept.rooms

    async def _bring_up_to_date(self, user_id: str, kept: _Kept) -> None:
        """Read what was announced up to now; what changes meanwhile is still to be read."""
        changes = dict(kept.changes)
        if kept.rooms is None:
            kept.rooms = UserRooms.of(await room_storage.local_memberships_of(self._db.read, user_id))
        elif changes:
            rows = await room_storage.local_memberships_in_rooms(self._db.read, user_id, list(changes))
            kept.rooms = kept.rooms.with_changed(rows)
        for nid, change in changes.items():
            if kept.changes.get(nid) is change:
                del kept.changes[nid]

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

    def _note(self, room_nid: int, users: Iterable[str]) -> None:
        for user_id in users:
            kept = self._known.get(user_id)
            if kept is not None:
                kept.changes[room_nid] = object()
