"""How many events people with pushers have not read, over all their rooms.

Kept for each of them from when it is first asked for: only rooms in which something
happened are counted again.  Invites count as one each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.rooms.rooms import Rooms
from homeserver.storage import pushers
from homeserver.storage.database import Database
from homeserver.sync.memberships import Memberships
from homeserver.sync.notifier import Notifier
from homeserver.sync.unread import Unread

_REMEMBERED_USERS = 10_000


class _Totals:
    """A user's unread events by room; rooms without any are left out."""

    def __init__(self) -> None:
        self.by_room: dict[int, int] = {}
        #: Rooms to be counted again.
        self.stale: set[int] = set()
        #: All of them are.
        self.all_stale = True
        self.lock = asyncio.Lock()


class Badges:
    """Counts unread events of people."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        memberships: Memberships,
        unread: Unread,
        invite_permissions: InvitePermissions,
        notifier: Notifier,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._memberships = memberships
        self._unread = unread
        self._invite_permissions = invite_permissions
        self._notifier = notifier
        self._known: OrderedDict[str, _Totals] = OrderedDict()

    def changed(self, user_id: str, room_nid: int | None = None) -> None:
        """Something happened in a room, or (``None``) to what all of a user's counts rest on."""
        totals = self._known.get(user_id)
        if totals is None:
            return
        if room_nid is None:
            totals.all_stale = True
        else:
            totals.stale.add(room_nid)

    def forget(self, user_id: str) -> None:
        """A user has no pushers any more."""
        self._known.pop(user_id, None)

    async def of(self, user_id: str) -> int:
        """How many events, and invites, a user has not read."""
        totals = self._known.setdefault(user_id, _Totals())
        self._known.move_to_end(user_id)
        if len(self._known) > _REMEMBERED_USERS:
            self._known.popitem(last=False)
        async with totals.lock:
            await self._bring_up_to_date(user_id, totals)
        rooms = await self._memberships.at(user_id, self._notifier.position)
        invites = 0
        for membership in rooms.by_room.values():
            if membership.membership == "invite":
                invites += await self._invite_permissions.shows(user_id, membership.sender)
        return invites + sum(count for nid, count in totals.by_room.items() if nid in rooms.joined)

    async def _bring_up_to_date(self, user_id: str, totals: _Totals) -> None:
        """Count the rooms again that need it; what fails is still to be done."""
        to_count, totals.stale = totals.stale, set()
        all_stale, totals.all_stale = totals.all_stale, False
        try:
            if all_stale:
                to_count |= set(await pushers.rooms_with_unread(self._db.scan, user_id))
            counts = await self._count(user_id, to_count)
        except BaseException:
            totals.all_stale = True
            raise
        if all_stale:
            totals.by_room.clear()
        for nid, unread in counts.items():
            totals.by_room.pop(nid, None)
            if unread:
                totals.by_room[nid] = unread

    async def _count(self, user_id: str, room_nids: Iterable[int]) -> dict[int, int]:
        joined = (await self._memberships.at(user_id, self._notifier.position)).joined
        counts = {}
        for nid in room_nids:
            counts[nid] = 0
            if nid in joined:
                room = await self._rooms.by_nid(nid)
                counts[nid] = len(await self._unread.notices(room, user_id, self._notifier.position))
        return counts
