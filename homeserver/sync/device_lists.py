"""Whose devices a client has to look at again, and whose no longer: ``device_lists`` of ``/sync``.

Two things make somebody appear: their keys changed, or who shares rooms with them did.  Neither is
looked for where nothing of it happened: a sync that brings messages only costs two comparisons
a room.  Specification: client-server API, "Extensions to /sync" of end-to-end encryption.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from homeserver.e2e.changes import KeyChanges
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import Visibility
from homeserver.storage import sharing
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database
from homeserver.storage.keys import Keys
from homeserver.storage.rooms import LocalMembership
from homeserver.storage.state import NO_EVENT
from homeserver.sync.memberships import UserRooms

#: Coming into a larger room that is not encrypted says nothing of its members: nobody encrypts for them.
_MAX_UNENCRYPTED = 1000
_PAGE = 500


class Moves(msgspec.Struct):
    """Users whom somebody came to share a room with, and with whom they share one less."""

    came: set[str] = msgspec.field(default_factory=set)
    went: set[str] = msgspec.field(default_factory=set)


class DeviceListNews:
    """Finds the users to tell of."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        keys: Keys,
        events: EventCache,
        visibility: Visibility,
        changes: KeyChanges,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._keys = keys
        self._events = events
        self._visibility = visibility
        self._changes = changes

    async def between(
        self, user_id: str, rooms: UserRooms, with_news: Collection[int], since: int, upto: int
    ) -> tuple[list[str], list[str]]:
        """``changed`` and ``left`` for a user between two announced positions, sorted.

        ``rooms`` are the user's at ``upto``, ``with_news`` those of the joined ones that
        may have events after ``since``.
        """
        changed = await self._changes.since(user_id, since)
        moves = Moves()
        for nid in with_news:
            await self._in_joined(moves, rooms.by_room[nid], since, upto)
        if rooms.newest > since:
            for membership in rooms.by_room.values():
                if membership.pos > since and membership.membership in {"leave", "ban"}:
                    await self._in_left(moves, membership, since)
        changed |= moves.came
        went = moves.went - moves.came - {user_id}
        left = went - await self._sharing(went, user_id) if went else went
        return sorted(changed - left), sorted(left)

    async def _in_joined(self, moves: Moves, membership: LocalMembership, since: int, upto: int) -> None:
        room = await self._rooms.by_nid(membership.room_nid)
        if max(room.state_ver, room.full_since) <= since:
            return
        if await self._is_new_to(room, membership, since, upto):
            encrypted = ("m.room.encryption", "") in room.state
            if encrypted or room.joined_members <= _MAX_UNENCRYPTED:
                moves.came.update(await sharing.joined_members(self._db.scan, room.nid))
        else:
            await self._add_moves(moves, room, since, upto)

    async def _is_new_to(self, room: Room, membership: LocalMembership, since: int, upto: int) -> bool:
        """Whether the user has come into the room, or its whole state anew, since a position."""
        if max(room.epoch_start, room.full_since) > since:
            return True
        if membership.pos <= since:
            return False
        joined_since = await self._visibility.joined_since(room, membership.user_id, upto)
        return joined_since is not None and joined_since > since

    async def _in_left(self, moves: Moves, membership: LocalMembership, since: int) -> None:
        """A room the user was in: everybody who was there with them."""
        room = await self._rooms.by_nid(membership.room_nid)
        before = await self._visibility.membership_at(room, membership.user_id, since)
        if before is not None and membership_of(before[1]) == "join":
            moves.went.update(await sharing.joined_members(self._db.scan, room.nid))
            await self._add_moves(moves, room, since, membership.pos)

    async def _add_moves(self, moves: Moves, room: Room, since: int, upto: int) -> None:
        """Who joined and who left between two positions."""
        reader = self._db.read if since >= room.recent_after else self._db.scan
        log = await state_storage.changes(reader, room.nid, room.epoch, since, upto)
        names = await self._keys.names([change.key_nid for change in log])
        log = [change for change in log if names[change.key_nid][0] == MEMBER]
        if not log:
            return
        nids = {nid for change in log for nid in (change.event_nid, change.prev_event_nid)} - {NO_EVENT}
        stored = await self._events.by_nids(list(nids))
        final = {change.key_nid: membership_of(stored.get(change.event_nid)) for change in log}
        for change in log:
            before = membership_of(stored.get(change.prev_event_nid))
            after = membership_of(stored.get(change.event_nid))
            user_id = names[change.key_nid][1]
            if (before == "join") == (after == "join"):
                continue
            (moves.came if final[change.key_nid] == "join" else moves.went).add(user_id)

    async def _sharing(self, user_ids: Iterable[str], local_user: str) -> set[str]:
        candidates = list(user_ids)
        found: set[str] = set()
        for start in range(0, len(candidates), _PAGE):
            found |= await sharing.with_user(self._db.scan, candidates[start : start + _PAGE], local_user)
        return found
