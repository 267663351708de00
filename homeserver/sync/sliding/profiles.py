"""The extension ``profiles``: what changes in the profiles of those one shares rooms with (MSC4262).

It tells of the users of this server, whose changes are known here; other servers do not tell of
theirs, but for names and avatars in membership events.  Whole profiles are told for rooms with few
users of this server: in large rooms clients ask for those that they show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from homeserver.errors import MatrixError
from homeserver.protocol.ids import server_of
from homeserver.rooms.rooms import Rooms
from homeserver.storage import profile_changes, sharing
from homeserver.storage.database import Database
from homeserver.storage.profile_changes import ProfileField
from homeserver.sync.sliding.extension import SlidingReading

_NAMES = ("org.matrix.msc4262.profiles", "profiles")

#: In the connection's memory.
_MEMORY = "profiles"

_MAX_FIELDS = 100
#: Changes of fields that one response tells of; after a long absence the oldest are left out.
_MAX_CHANGES = 2000
#: Rooms with more users of this server are large, and how many rooms and users are told of at once.
_MAX_MEMBERS = 100
_MAX_ROOMS = 200
_MAX_USERS = 500
#: Users that a connection is known to know; those beyond may be told of again.
_MAX_KNOWN = 5000


class Parted(Protocol):
    """Knows who shares no room with a user any more."""

    async def device_lists(self, user_id: str, since: int, upto: int) -> tuple[list[str], list[str]]:
        """Users whose devices changed between two positions, and those no room is shared with any more."""
        ...


class _Told(msgspec.Struct, frozen=True, gc=False):
    """What a connection was told of whole profiles: which fields (``None``: all), and of whom."""

    fields: frozenset[str] | None
    users: frozenset[str]

    def covers(self, fields: frozenset[str] | None) -> bool:
        return self.fields is None or (fields is not None and fields <= self.fields)


class ProfilesExtension:
    """Tells of profiles."""

    names = _NAMES

    def __init__(self, db: Database, rooms: Rooms, parted: Parted, server_name: str) -> None:
        self._db = db
        self._rooms = rooms
        self._parted = parted
        self._server_name = server_name

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """As ``Extension`` has it; ``M_INVALID_PARAM`` for ``fields`` that are no list of names."""
        fields = _fields(asked)
        users = _updated(await self._newcomers(asked, reading, fields))
        changed: dict[str, Any] = {}
        if reading.since is not None:
            changed = await self._changes(reading, reading.since.pos, fields)
            users |= changed
        return ({"users": users} if users else None), bool(changed)

    async def _newcomers(
        self, asked: Mapping[str, Any], reading: SlidingReading, fields: frozenset[str] | None
    ) -> list[ProfileField]:
        """The profiles of those in rooms that come into view, as far as they are not known.

        When more fields are asked for than before, of those in all rooms in view.
        """
        told = reading.memory.get(_MEMORY)
        if not isinstance(told, _Told) or not told.covers(fields):
            told = _Told(fields, frozenset())
            rooms: Iterable[int] = reading.rooms(asked)
        else:
            in_view = reading.rooms(asked)
            rooms = (nid for nid, is_first in reading.sent_rooms.items() if is_first and nid in in_view)
        small = await self._small(reading, rooms)
        members = await sharing.local_members(self._db.read, small) if small else {}
        new = {user_id for users in members.values() for user_id in users} - told.users - reading.ignored
        chosen = sorted(new)[:_MAX_USERS]
        known = told.users | {*chosen}
        # What the connection was told under a wider choice of fields it still knows.
        reading.memory[_MEMORY] = _Told(told.fields, known if len(known) <= _MAX_KNOWN else frozenset(chosen))
        if not chosen:
            return []
        found = await profile_changes.of_users(self._db.read, chosen)
        return [one for one in found if fields is None or one.field in fields]

    async def _small(self, reading: SlidingReading, rooms: Iterable[int]) -> list[int]:
        """Those of some rooms that the user is in together with few others of this server."""
        small: list[int] = []
        for nid in rooms:
            if nid not in reading.memberships.joined:
                continue
            room = await self._rooms.by_nid(nid)
            if room.servers.get(self._server_name, 0) <= _MAX_MEMBERS:
                small.append(nid)
                if len(small) == _MAX_ROOMS:
                    break
        return small

    async def _changes(
        self, reading: SlidingReading, since: int, fields: frozenset[str] | None
    ) -> dict[str, Any]:
        """What has changed since; ``None`` for those whom the user shares no room with any more."""
        user_id, upto = reading.user_id, reading.now.pos
        found = await profile_changes.seen_by(self._db.read, user_id, since, upto, _MAX_CHANGES)
        wanted = [
            one
            for one in found
            if one.user_id not in reading.ignored and (fields is None or one.field in fields)
        ]
        _, left = await self._parted.device_lists(user_id, since, upto)
        gone = {one: None for one in left if server_of(one) == self._server_name}
        self._forget(reading, gone)
        return _updated(wanted) | gone

    @staticmethod
    def _forget(reading: SlidingReading, gone: Iterable[str]) -> None:
        """Who is met again is told of anew."""
        told = reading.memory[_MEMORY]
        reading.memory[_MEMORY] = _Told(told.fields, told.users - {*gone})


def _fields(asked: Mapping[str, Any]) -> frozenset[str] | None:
    """The fields that are asked for; ``None``: all."""
    fields = asked.get("fields")
    if fields is None:
        return None
    if (
        not isinstance(fields, list)
        or len(fields) > _MAX_FIELDS
        or not all(isinstance(f, str) for f in fields)
    ):
        raise MatrixError(400, "M_INVALID_PARAM", "'fields' must be a list of names of profile fields")
    return frozenset(fields)


def _updated(fields: Sequence[ProfileField]) -> dict[str, Any]:
    """Fields as they are told, by user."""
    users: dict[str, Any] = {}
    for one in fields:
        user = users.setdefault(one.user_id, {})
        if one.value is None:
            user.setdefault("removed", []).append(one.field)
        else:
            user.setdefault("updated", {})[one.field] = orjson.loads(one.value)
    return users
