"""Restricted rooms: who may come in without an invite, and who here may let them in.

Specification: client-server API, "Restricted rooms"; room version 8, "Authorisation rules".
"""

from __future__ import annotations

from collections.abc import Iterator

from homeserver.errors import forbidden
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.state_store import StateStore
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database


class RestrictedJoin:
    """Decides joins of local users under the ``restricted`` and ``knock_restricted`` join rules."""

    def __init__(self, db: Database, states: StateStore, server_name: str) -> None:
        self._db = db
        self._states = states
        self._server_name = server_name

    def applies_to(self, room: Room) -> bool:
        """Whether the room's join rule has conditions."""
        rule, rules = room.join_rule, room.rules
        return (rule == "restricted" and rules.restricted_joins) or (
            rule == "knock_restricted" and rules.knock_restricted_joins
        )

    async def authoriser(self, room: Room, user_id: str) -> str | None:
        """The local member who lets a local user in; ``None`` when none here may invite.

        Raises ``M_FORBIDDEN`` for a user who meets none of the conditions.
        """
        if not await self.meets_condition(room, user_id):
            raise forbidden("You are not in any of the rooms whose members may join this one")
        return await self.inviter(room)

    async def inviter(self, room: Room) -> str | None:
        """A local member who may invite, and so may let others in; ``None`` when there is none."""
        levels = room.power_levels
        for candidate in self._powerful(room):
            if server_name_of(candidate) == self._server_name and await self._is_joined(room, candidate):
                return candidate
        if levels.users_default < levels.invite:
            return None
        for candidate in await room_storage.local_joined(self._db.scan, room.nid):
            if levels.of_user(candidate) >= levels.invite and await self._is_joined(room, candidate):
                return candidate
        return None

    async def meets_condition(self, room: Room, user_id: str) -> bool:
        """Whether a local user is joined to one of the rooms whose members may join."""
        for room_id in allowed_rooms(room):
            row = await room_storage.by_id(self._db.read, room_id)
            known = row and await room_storage.local_membership(self._db.read, user_id, row.nid)
            if known and known.membership == "join":
                return True
        return False

    def servers_that_may_let_in(self, room: Room) -> list[str]:
        """Servers with members who may invite, as far as power levels tell."""
        levels = room.power_levels
        found = dict.fromkeys(server_name_of(user_id) for user_id in self._powerful(room))
        servers = [server for server in found if server in room.servers]
        return [*servers, *room.servers] if levels.users_default >= levels.invite else servers

    def _powerful(self, room: Room) -> Iterator[str]:
        levels = room.power_levels
        for user_id in (*levels.unbounded, *levels.users):
            if is_user_id(user_id) and levels.of_user(user_id) >= levels.invite:
                yield user_id

    async def _is_joined(self, room: Room, user_id: str) -> bool:
        return membership_of(await self._states.member(room, user_id)) == "join"


def allowed_rooms(room: Room) -> list[str]:
    """The rooms whose joined members may join; conditions of other kinds are left out."""
    event = room.state_event("m.room.join_rules")
    allow = event.content.get("allow") if event else None
    entries = allow if isinstance(allow, list) else []
    conditions = [
        entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "m.room_membership"
    ]
    return [entry["room_id"] for entry in conditions if isinstance(entry.get("room_id"), str)]
