"""Joining a room: here where somebody of this server may let the user in, else through another server.

Specification: client-server API, "Joining rooms", and "Restricted rooms" there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from homeserver.errors import forbidden, guest_access_forbidden, not_found
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.member_events import MemberEvents, says
from homeserver.rooms.remote import RemoteMemberships
from homeserver.rooms.restricted_join import RestrictedJoin
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.servers import servers_spoken_of, servers_that_know
from homeserver.rooms.shown_profile import Profiles, shown_profile
from homeserver.rooms.state_store import StateStore
from homeserver.storage import guests
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

#: What the server alone says in a member event.
AUTHORISER = "join_authorised_via_users_server"


class PersonalSettings(Protocol):
    """Keeps what users set for rooms; ``users/carry_over.py`` fulfils it."""

    async def joined(self, user_id: str, room_id: str) -> None:
        """A local user has come into a room, which may replace another."""
        ...


class Joining:
    """Joins local users."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        send: Send,
        members: MemberEvents,
        profiles: Profiles,
        remote: RemoteMemberships,
        server_name: str,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._send = send
        self._members = members
        self._profiles = profiles
        self._remote = remote
        self._server_name = server_name
        self._restricted = RestrictedJoin(db, states, server_name)
        #: Set once there is what keeps them.
        self.settings: PersonalSettings | None = None

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> None:
        """Join a room, through other servers where this one is not in it or nobody here may let the user in.

        A user who is joined already stays so.  ``M_NOT_FOUND`` where there is no server to ask.
        """
        is_new = await self._has_not_been_in(user_id, room_id)
        await self._join(user_id, room_id, servers, content)
        await self._settle_in(user_id, room_id, is_new=is_new)

    async def join_as_written(
        self, user_id: str, room_id: str, content: Mapping[str, Any], origin_server_ts: int | None
    ) -> StoredEvent:
        """Join a room this server is in with a member event as the client wrote it, or rewrite that event.

        ``M_FORBIDDEN`` where nobody on this server may let the user in.
        """
        is_new = await self._has_not_been_in(user_id, room_id)
        joined = await self._join_here(
            user_id, room_id, content, rewrite=True, origin_server_ts=origin_server_ts
        )
        if joined is None:
            raise forbidden("Nobody on this server may let you in")
        await self._settle_in(user_id, room_id, is_new=is_new)
        return joined

    async def _has_not_been_in(self, user_id: str, room_id: str) -> bool:
        room = await self._rooms.find(room_id)
        if room is not None and room.partial is None and self._rooms.is_in(room):
            # Joining needs this member event in memory anyway.
            member = await self._states.member(room, user_id)
            return member is None or membership_of(member) in {"invite", "knock"}
        known = room and await room_storage.local_membership(self._db.read, user_id, room.nid)
        return not known or known.membership in {"invite", "knock"}

    async def _settle_in(self, user_id: str, room_id: str, *, is_new: bool) -> None:
        if is_new and self.settings is not None:
            await self.settings.joined(user_id, room_id)

    async def _join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> None:
        content = {**await shown_profile(self._profiles, user_id), **content, "membership": "join"}
        room = await self._rooms.find(room_id)
        if room is None or not self._rooms.is_in(room):
            # Whether guests may join can only be told from the inside.
            await self._check_no_guest(user_id)
        else:
            if await self._join_here(user_id, room_id, content) is not None:
                return
            residents = () if room.partial is None else (room.partial.resident,)
            servers = (*residents, *self._restricted.servers_that_may_let_in(room), *servers)
        known = await self.servers_to_ask(user_id, room_id, room, servers)
        await self._remote.join(room_id, known, user_id, dict(content))

    @again_when_stale
    async def _join_here(
        self,
        user_id: str,
        room_id: str,
        content: Mapping[str, Any],
        *,
        rewrite: bool = False,
        origin_server_ts: int | None = None,
    ) -> StoredEvent | None:
        """Join a room this server is in; ``None`` where no member here may let the user in, or can tell.

        ``rewrite`` changes the content of the membership of a user who is joined already.
        """
        async with self._members.here(room_id) as room:
            member = await self._states.member(room, user_id)
            current = membership_of(member)
            if member is not None and current == "join" and (not rewrite or says(member, user_id, content)):
                await room.settle()
                return member
            if current != "join" and not room.guests_may_join:
                await self._check_no_guest(user_id)
            if member is None and room.partial is not None:
                return None
            if current not in {"join", "invite", "ban"} and self._restricted.applies_to(room):
                authoriser = await self._restricted.authoriser(room, user_id)
                if authoriser is None:
                    return None
                content = {**content, AUTHORISER: authoriser}
            draft = Draft(user_id, MEMBER, content, state_key=user_id, origin_server_ts=origin_server_ts)
            written = await self._send.stage(room, draft)
        return (await written)[0]

    async def _check_no_guest(self, user_id: str) -> None:
        if await guests.is_guest(self._db.read, user_id):
            raise guest_access_forbidden("Guests may not join this room")

    async def servers_to_ask(
        self, user_id: str, room_id: str, room: Room | None, servers: Sequence[str]
    ) -> list[str]:
        """The servers that were named and those an invite speaks of; where there are none, any that may know.

        A client that names servers knows of them from whoever told of the room: others are guesses.
        """
        spoken_of = await servers_spoken_of(self._db.read, user_id, room)
        others = self._without_own((*servers, *spoken_of))
        if not others:
            others = self._without_own(await servers_that_know(self._db.read, user_id, room_id, room))
        if not others:
            raise not_found("There is no server known that is in this room")
        return others

    def _without_own(self, servers: Iterable[str]) -> list[str]:
        return [server for server in dict.fromkeys(servers) if server != self._server_name]
