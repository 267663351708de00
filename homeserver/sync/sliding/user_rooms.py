"""A user's rooms as lists see them: by last activity, as filters choose them.

Built once for a user who syncs, with a number of queries that does not depend on the number of
rooms, and then brought up to date by what changed.  Which rooms a connection has been told is
not known here.
Specification: MSC4186, "Lists", "Activity ordering", ``SlidingRoomFilter``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Any

import orjson

from homeserver.protocol.spaces import CHILD
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.invite_permission import SAYS_WHICH_INVITES, InvitePermissions
from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.storage import account_data
from homeserver.storage import rooms as room_storage
from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.storage.state import NO_EVENT
from homeserver.sync.memberships import UserRooms
from homeserver.sync.sliding.recency import RecencyList
from homeserver.sync.sliding.request import Filters
from homeserver.sync.sliding.room_facts import UNKNOWN, Facts, RoomFacts, told_from_outside

_DIRECT, _TAGS = "m.direct", "m.tag"
_GONE = frozenset({"leave", "ban"})
#: Of one user; what is dropped is merely made anew.
_REMEMBERED_FILTERS = 20


class Sources:
    """What the rooms of all users are read from."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        facts: RoomFacts,
        newest: NewestPositions,
        invite_permissions: InvitePermissions,
    ) -> None:
        self.db = db
        self.rooms = rooms
        self.events = events
        self.facts = facts
        self.newest = newest
        self.invite_permissions = invite_permissions


class UserRoomList:
    """The rooms of one user.

    Only ``bring_up_to`` and ``chosen`` await; between them nothing changes for who does not.
    """

    def __init__(self, sources: Sources, user_id: str) -> None:
        self._sources = sources
        self._user_id = user_id
        #: Rooms one is in, invited to or knocks at, and those one was sent away from.
        self.everything = RecencyList()
        #: Rooms one left, by when that was.
        self.departed = RecencyList()
        self.ids: dict[int, str] = {}
        self.nids: dict[str, int] = {}
        #: The ids of rooms that are direct chats.
        self.direct: frozenset[str] = frozenset()
        self._tags: dict[str, frozenset[str]] = {}
        self._children: dict[str, frozenset[str]] = {}
        self._facts: dict[int, Facts] = {}
        self._memberships: UserRooms | None = None
        self._chosen: OrderedDict[Filters, RecencyList] = OrderedDict()
        self._upto = 0
        self._account_data_upto = 0
        self._lock = asyncio.Lock()
        #: Whether the user's account data may have changed since it was read.
        self.own_news = True

    async def bring_up_to(self, now: int, memberships: UserRooms) -> None:
        """Take in what has happened up to an announced position."""
        async with self._lock:
            since, again = self._upto, await self._read_account_data()
            sent_again: set[int] = set(again)
            if memberships is not self._memberships:
                sent_again |= await self._take_memberships(memberships)
            changed = await self._sources.newest.changed(memberships.joined, since)
            facts_matter = any(filters.needs_facts for filters in self._chosen)
            if facts_matter:
                await self._sources.facts.changed(changed)
                await self._learn_facts({*changed, *sent_again})
            sent_again |= await self._read_children(changed)
            for nid in changed:
                self.everything.put(nid, self._sources.newest.position(nid) or now)
            self._choose_again(changed, sent_again)
            self._upto = max(now, since)

    async def chosen(self, filters: Filters) -> RecencyList:
        """The rooms that pass filters."""
        if filters == Filters():
            return self.everything
        async with self._lock:
            found = self._chosen.get(filters)
            if found is None:
                found = self._chosen[filters] = await self._choose(filters)
                if len(self._chosen) > _REMEMBERED_FILTERS:
                    self._chosen.popitem(last=False)
            self._chosen.move_to_end(filters)
            return found

    def membership(self, room_nid: int) -> LocalMembership | None:
        """The user's part in a room."""
        return self._memberships.by_room.get(room_nid) if self._memberships is not None else None

    def position(self, room_nid: int) -> int:
        """When something happened the last time in a room, that the user may see of it."""
        return self.everything.position(room_nid) or self.departed.position(room_nid)

    async def _choose(self, filters: Filters) -> RecencyList:
        nids = list(self.everything.between(0, len(self.everything)))
        if filters.needs_facts:
            await self._learn_facts(nids)
        await self._find_children(filters.spaces or ())
        found = RecencyList()
        found.fill({nid: self.everything.position(nid) for nid in nids if self._passes(filters, nid)})
        return found

    def _choose_again(self, changed: Collection[int], otherwise: Collection[int]) -> None:
        """Bring the filtered lists up to date: with rooms that had news, and others."""
        for filters, rooms in self._chosen.items():
            for nid in otherwise:
                if nid in self.everything and self._passes(filters, nid):
                    rooms.put_back(nid, self.everything.position(nid))
                else:
                    rooms.drop(nid)
            for nid in changed:
                if self._passes(filters, nid):
                    rooms.put(nid, self.everything.position(nid))
                else:
                    rooms.drop(nid)

    def _passes(self, filters: Filters, nid: int) -> bool:
        room_id = self.ids[nid]
        if filters.is_dm is not None and filters.is_dm != (room_id in self.direct):
            return False
        if filters.is_invited is not None and filters.is_invited != self._is_invite(nid):
            return False
        if filters.spaces is not None and not any(
            room_id in self._children.get(space, ()) for space in filters.spaces
        ):
            return False
        tags = self._tags.get(room_id, frozenset())
        if filters.tags is not None and not filters.tags & tags:
            return False
        if filters.not_tags is not None and filters.not_tags & tags:
            return False
        return not filters.needs_facts or _are_wanted(filters, self._facts.get(nid))

    def _is_invite(self, nid: int) -> bool:
        membership = self.membership(nid)
        return membership is not None and membership.membership == "invite"

    async def _take_memberships(self, memberships: UserRooms) -> set[int]:
        """Have the rooms of these memberships; those that changed are returned."""
        before = self._memberships.by_room if self._memberships is not None else {}
        changed = [one for nid, one in memberships.by_room.items() if before.get(nid) is not one]
        changed = [one for one in changed if before.get(one.room_nid) != one]
        rows = await room_storage.by_nids(self._sources.db.scan, [one.room_nid for one in changed])
        sent_away = await self._sent_away(changed)
        shown = [one for one in changed if await self._is_shown(one, sent_away)]
        self._memberships = memberships
        positions: dict[int, int] = {}
        for one in shown:
            row = rows[one.room_nid]
            positions[one.room_nid] = max(row.last_pos, one.pos) if one.membership == "join" else one.pos
        for one in changed:
            nid = one.room_nid
            self.ids[nid], self.nids[rows[nid].room_id] = rows[nid].room_id, nid
            if nid in positions:
                self.departed.drop(nid)
            else:
                self.everything.drop(nid)
                if one.membership in _GONE:
                    self.departed.put(nid, one.pos)
            self._facts.pop(nid, None)
        self._place(positions)
        gone = set(before) - set(memberships.by_room)
        for nid in gone:
            self.everything.drop(nid)
        return {one.room_nid for one in changed} | gone

    def _place(self, positions: dict[int, int]) -> None:
        if not len(self.everything):
            self.everything.fill(positions)
            return
        for nid, position in positions.items():
            self.everything.put_back(nid, position)

    async def _is_shown(self, one: LocalMembership, sent_away: Collection[int]) -> bool:
        if one.membership == "invite":
            return await self._sources.invite_permissions.shows(self._user_id, one.sender)
        if one.membership in _GONE:
            return one.room_nid in sent_away and not one.forgotten
        return True

    async def _sent_away(self, changed: Iterable[LocalMembership]) -> set[int]:
        """Those of the rooms the user was kicked or banned from: was there, and did not just go."""
        rooms = {one.room_nid for one in changed if one.membership in _GONE and one.sender != self._user_id}
        if not rooms:
            return set()
        rows = await room_storage.before_being_sent_away(self._sources.db.read, self._user_id)
        before = await self._sources.events.by_nids([nid for _, nid in rows if nid != NO_EVENT])
        found = set()
        for room_nid, event_nid in rows:
            stored = before.get(event_nid)
            if stored is None or room_nid not in rooms:
                continue
            was = membership_of(stored)
            if was == "join" or (was in _GONE and stored.event.sender != self._user_id):
                found.add(room_nid)
        return found

    async def _read_account_data(self) -> set[int]:
        """Direct chats and tags; the rooms of which these changed."""
        if not self.own_news:
            return set()
        self.own_news = False
        db, since = self._sources.db, self._account_data_upto
        reader = db.read if since else db.scan
        data = await account_data.changed(reader, self._user_id, since)
        self._account_data_upto = max((datum.pos for datum in data), default=since)
        again: set[str] = set()
        for datum in data:
            if datum.type == _DIRECT and datum.room_id == GLOBAL:
                direct = _direct_rooms(orjson.loads(datum.content))
                again |= direct ^ self.direct
                self.direct = direct
            elif datum.type == _TAGS and datum.room_id != GLOBAL:
                self._take_tags(datum)
                again.add(datum.room_id)
            elif datum.room_id == GLOBAL and since and datum.type in SAYS_WHICH_INVITES:
                self._look_at_invites_again()
        return {self.nids[room_id] for room_id in again if room_id in self.nids}

    def _look_at_invites_again(self) -> None:
        """Other invites may be wanted than before: they are taken for new."""
        if self._memberships is None:
            return
        known = self._memberships
        kept = {nid: one for nid, one in known.by_room.items() if one.membership != "invite"}
        if len(kept) < len(known.by_room):
            self._memberships = UserRooms(kept, known.joined, known.newest)

    def _take_tags(self, datum: AccountDatum) -> None:
        tags = orjson.loads(datum.content).get("tags")
        if isinstance(tags, dict) and tags:
            self._tags[datum.room_id] = frozenset(tags)
        else:
            self._tags.pop(datum.room_id, None)

    async def _learn_facts(self, nids: Collection[int]) -> None:
        known = await self._sources.facts.of(list(nids))
        for nid in nids:
            membership = self.membership(nid)
            outside = told_from_outside(membership) if membership is not None else None
            facts = outside or known.get(nid)
            if facts is not None:
                self._facts[nid] = facts

    async def _read_children(self, changed: Collection[int]) -> set[int]:
        """Look again at spaces that filters name and that changed; the rooms that came or went."""
        again: set[str] = set()
        for space in list(self._children):
            nid = self.nids.get(space)
            if nid is None or nid in changed or not self._is_joined(nid):
                before = self._children[space]
                await self._find_children([space])
                again |= before ^ self._children[space]
        return {self.nids[room_id] for room_id in again if room_id in self.nids}

    async def _find_children(self, spaces: Iterable[str]) -> None:
        wanted = {space for filters in self._chosen for space in filters.spaces or ()}
        for space in [known for known in self._children if known not in wanted]:
            del self._children[space]
        for space in spaces:
            nid = self.nids.get(space)
            joined = nid is not None and self._is_joined(nid)
            room = await self._sources.rooms.by_nid(nid) if nid is not None and joined else None
            self._children[space] = _children_of(room) if room is not None else frozenset()

    def _is_joined(self, nid: int) -> bool:
        return self._memberships is not None and nid in self._memberships.joined


def _are_wanted(filters: Filters, facts: Facts | None) -> bool:
    known = facts or UNKNOWN
    if filters.is_encrypted is not None and (facts is None or filters.is_encrypted != known.encrypted):
        return False
    if filters.room_types is not None and (facts is None or known.room_type not in filters.room_types):
        return False
    return filters.not_room_types is None or facts is None or known.room_type not in filters.not_room_types


def _direct_rooms(content: Any) -> frozenset[str]:
    """The rooms that an ``m.direct`` names."""
    lists = content.values() if isinstance(content, dict) else ()
    return frozenset(
        room_id for rooms in lists if isinstance(rooms, list) for room_id in rooms if isinstance(room_id, str)
    )


def _children_of(space: Room) -> frozenset[str]:
    """The rooms a space names, each with servers to reach it by."""
    return frozenset(
        state_key
        for (type_, state_key), stored in space.state.items()
        if type_ == CHILD and isinstance(stored.event.content.get("via"), list)
    )
