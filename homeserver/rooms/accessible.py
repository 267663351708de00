"""Who may be told what room there is: those who are in it, and those who could come in or look in.

Asked for many rooms at once; nothing here changes anything.  Specification: client-server
API, ``GET /rooms/{roomId}/hierarchy``; server-server API, ``GET /hierarchy/{roomId}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.storage import summaries as summary_storage
from homeserver.storage.database import Database


class Doors(Protocol):
    """What decides whether somebody outside could come in."""

    @property
    def room_id(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def join_rule(self) -> str: ...

    @property
    def world_readable(self) -> bool: ...

    @property
    def allowed_room_ids(self) -> tuple[str, ...]: ...


class LocalDoors(Doors, Protocol):
    """The same of a room that is stored here."""

    @property
    def room_nid(self) -> int: ...


class Accessible:
    """Tells which of some rooms somebody may know of."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def to_user(self, user_id: str | None, rooms: Sequence[Doors]) -> dict[str, str | None]:
        """Those a local user (``None``: nobody in particular) may know of, with their membership there."""
        memberships: Mapping[str, str] = {}
        if user_id is not None:
            asked = {each for room in rooms for each in (room.room_id, *room.allowed_room_ids)}
            memberships = await summary_storage.memberships_in(self._db.scan, user_id, sorted(asked))
        return {room.room_id: memberships.get(room.room_id) for room in rooms if _may_know(room, memberships)}

    async def to_server(self, server_name: str, rooms: Sequence[LocalDoors]) -> set[str]:
        """Those that some user of another server may know of, as far as this server can tell.

        Of conditions on other rooms only those count that this server is in itself.
        """
        closed = [room for room in rooms if not is_open(room)]
        asked = sorted({each for room in closed for each in (room.room_id, *room.allowed_room_ids)})
        shared = await summary_storage.rooms_with(self._db.scan, server_name, self._server_name, asked)
        outside = [room for room in closed if not shared.intersection((room.room_id, *room.allowed_room_ids))]
        inviting = await summary_storage.rooms_inviting(
            self._db.scan, server_name, [room.room_nid for room in outside]
        )
        shut = {room.room_id for room in outside if room.room_nid not in inviting}
        return {room.room_id for room in rooms if room.room_id not in shut}


def is_open(room: Doors) -> bool:
    """Whether everybody may know of a room: anyone may join, knock or look in."""
    rules = ROOM_VERSIONS.get(room.version)
    if room.world_readable or room.join_rule == "public":
        return True
    if room.join_rule == "knock":
        return rules is None or rules.knocking
    return room.join_rule == "knock_restricted" and (rules is None or rules.knock_restricted_joins)


def _may_know(room: Doors, memberships: Mapping[str, str]) -> bool:
    membership = memberships.get(room.room_id)
    if membership in ("join", "invite", "ban"):
        return membership != "ban"
    return is_open(room) or any(memberships.get(allowed) == "join" for allowed in room.allowed_room_ids)
