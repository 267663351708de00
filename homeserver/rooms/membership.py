"""Who is in a room: joining, leaving, inviting, removing, knocking and forgetting, by local users.

Where this server is in the room it makes the event itself; where it is not, it asks
other servers through ``RemoteMemberships``.  Whether a membership is allowed is left to
the auth rules, but for what they cannot know: the conditions of restricted rooms, and
what a kick or an unban is.  Specification: client-server API, "Room membership".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from homeserver.errors import MatrixError, bad_json, forbidden, invalid_param, not_found
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.invite_permission import check_accepts_invites
from homeserver.rooms.joining import AUTHORISER, Joining
from homeserver.rooms.member_events import MemberEvents
from homeserver.rooms.remote import RemoteMemberships
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.servers import servers_that_know
from homeserver.rooms.shown_profile import Profiles, profile_content, shown_profile
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.stripped_state import identifying_state
from homeserver.rooms.timeline import Timeline
from homeserver.storage import rooms as room_storage
from homeserver.storage import users
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

_log = structlog.get_logger()

#: Memberships that can be ended.
_PRESENT = frozenset({"join", "invite", "knock"})

_NOTHING: Mapping[str, Any] = {}


class UserProvider(Protocol):
    """Somebody who may make users when they are asked for: application services."""

    async def provides_user(self, user_id: str) -> bool:
        """Whether a user of this server, who was not there, may be there now."""
        ...


class Membership:
    """Changes memberships for local users.

    Everything raises ``NotAllowed`` when the auth rules refuse it, and ``M_FORBIDDEN``
    in a room this server is not in; ``content`` is what the member event is to say
    beside the membership (``reason``).  ``changed(user_id, room_nid)`` is told where something
    changes that no event says.
    """

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        timeline: Timeline,
        send: Send,
        profiles: Profiles,
        remote: RemoteMemberships,
        server_name: str,
        changed: Callable[[str, int], None],
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._timeline = timeline
        self._send = send
        self._profiles = profiles
        self._remote = remote
        self._server_name = server_name
        self._changed = changed
        self._members = MemberEvents(rooms, states, send)
        self.joining = Joining(
            db=db,
            rooms=rooms,
            states=states,
            send=send,
            members=self._members,
            profiles=profiles,
            remote=remote,
            server_name=server_name,
        )
        #: Asked for local users who are invited and not there.
        self.provider: UserProvider | None = None

    async def join(
        self,
        user_id: str,
        room_id: str,
        servers: Sequence[str] = (),
        content: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Join a room, through other servers where this one is not in it or nobody here may let the user in.

        A user who is joined already stays so.  ``M_NOT_FOUND`` where there is no server to ask.
        """
        await self.joining.join(user_id, room_id, servers, content)

    @again_when_stale
    async def leave(self, user_id: str, room_id: str, content: Mapping[str, Any] = _NOTHING) -> None:
        """Leave a room, reject an invite or take back a knock; nothing to do for one who has left.

        ``M_NOT_FOUND`` for a room this server has not heard of.
        """
        room = await self._rooms.find(room_id)
        if room is None:
            raise not_found("Unknown room")
        content = {**content, "membership": "leave"}
        if not self._rooms.is_in(room):
            await self._leave_elsewhere(user_id, room, content)
            return
        async with self._members.here(room_id) as room:
            member = await self._states.member(room, user_id)
            if member is not None and membership_of(member) == "leave":
                return
            written = await self._send.stage(room, Draft(user_id, MEMBER, content, state_key=user_id))
        await written

    async def leave_all(self, user_id: str) -> None:
        """Leave every room, reject every invite and take back every knock; what fails is logged."""
        for row in await room_storage.local_memberships_of(self._db.scan, user_id):
            if row.membership in _PRESENT:
                room = await self._rooms.by_nid(row.room_nid)
                try:
                    await self.leave(user_id, room.room_id)
                except (MatrixError, NotAllowed) as error:
                    _log.warning("room not left", user_id=user_id, room_id=room.room_id, reason=str(error))

    async def _leave_elsewhere(self, user_id: str, room: Room, content: dict[str, Any]) -> None:
        known = await room_storage.local_membership(self._db.read, user_id, room.nid)
        if known is None or known.membership == "ban":
            raise forbidden("You are not in this room")
        if known.membership == "leave":
            return
        servers = await servers_that_know(self._db.read, user_id, room.room_id, room)
        others = [server for server in servers if server != self._server_name]
        await self._remote.leave(room, others, user_id, content)

    async def invite(
        self,
        sender: str,
        room_id: str,
        target: str,
        content: Mapping[str, Any] = _NOTHING,
        *,
        origin_server_ts: int | None = None,
    ) -> StoredEvent:
        """Invite a user; one whom the sender has invited already is not invited again.

        Raises ``M_INVITE_BLOCKED`` for a local user who wants no invites of the sender, and what the
        invited user's server answers.
        """
        content = {**content, "membership": "invite"}
        if server_name_of(target) != self._server_name:
            return await self._invite_elsewhere(sender, room_id, target, content, origin_server_ts)
        if self.provider is not None and not await users.exists(self._db.read, target):
            with contextlib.suppress(MatrixError):
                await self.provider.provides_user(target)
        await check_accepts_invites(self._db.read, target, sender)
        content = {**await shown_profile(self._profiles, target), **content}
        return await self._members.change(sender, room_id, target, content, origin_server_ts=origin_server_ts)

    @again_when_stale
    async def _invite_elsewhere(
        self,
        sender: str,
        room_id: str,
        target: str,
        content: Mapping[str, Any],
        origin_server_ts: int | None,
    ) -> StoredEvent:
        """Invite another server's user, whose server has to sign the event before it is in the room.

        The room lock is not held while that server is asked.  What happens in the room
        meanwhile makes the invite a fork, with the state before it as it was when it was
        composed; it is given up where the room would not allow it any more.
        """
        await self._members.settle_member(room_id, target)
        async with self._members.settled(room_id) as room:
            if room.create.event.content.get("m.federate") is False:
                raise forbidden("This room is for users of its own server only")
            draft = Draft(sender, MEMBER, content, state_key=target, origin_server_ts=origin_server_ts)
            addition = await self._send.compose(room, draft)
            member = await self._states.member(room, sender)
        known = [*identifying_state(room), *([member.event] if member else [])]
        event = await self._send.with_recommendation(room, addition.event)
        signed = await self._remote.sign_invite(room, event, [one.pdu for one in known])
        async with self._members.here(room_id) as room:
            await self._send.check_current(room, signed)
            written = await self._timeline.stage(room, [msgspec.structs.replace(addition, event=signed)])
        return (await written)[0]

    async def kick(
        self, sender: str, room_id: str, target: str, content: Mapping[str, Any] = _NOTHING
    ) -> StoredEvent:
        """Remove a user; ``M_FORBIDDEN`` for one who is not in the room, invited or knocking."""
        content = {**content, "membership": "leave"}
        refusal = forbidden(f"{target} is not in the room")
        return await self._members.change(
            sender, room_id, target, content, only_from=_PRESENT, refusal=refusal
        )

    async def ban(
        self, sender: str, room_id: str, target: str, content: Mapping[str, Any] = _NOTHING
    ) -> StoredEvent:
        """Ban a user, who is removed if need be."""
        return await self._members.change(sender, room_id, target, {**content, "membership": "ban"})

    async def unban(
        self, sender: str, room_id: str, target: str, content: Mapping[str, Any] = _NOTHING
    ) -> StoredEvent:
        """Lift a ban; ``M_BAD_STATE`` for a user who is not banned."""
        content = {**content, "membership": "leave"}
        refusal = MatrixError(403, "M_BAD_STATE", f"{target} is not banned")
        return await self._members.change(
            sender, room_id, target, content, only_from=("ban",), refusal=refusal
        )

    async def knock(
        self,
        user_id: str,
        room_id: str,
        servers: Sequence[str] = (),
        content: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Ask to be let in; ``M_NOT_FOUND`` where there is no server to ask."""
        content = {**await shown_profile(self._profiles, user_id), **content, "membership": "knock"}
        room = await self._rooms.find(room_id)
        if room is not None and self._rooms.is_in(room):
            await self._members.change(user_id, room_id, user_id, content)
            return
        known = await self.joining.servers_to_ask(user_id, room_id, room, servers)
        await self._remote.knock(room_id, known, user_id, content)

    async def forget(self, user_id: str, room_id: str) -> None:
        """Forget a room; ``M_UNKNOWN`` for one the user has not left, ``M_NOT_FOUND`` for others."""
        room = await self._rooms.find(room_id)
        if room is None:
            raise not_found("Unknown room")
        known = await room_storage.local_membership(self._db.read, user_id, room.nid)
        if known is None:
            raise not_found("You have never had to do with this room")
        if known.membership in _PRESENT:
            raise MatrixError(400, "M_UNKNOWN", f"{user_id} is in room {room_id}")
        await self._db.write(lambda tx: room_storage.forget(tx, user_id, room.nid))
        self._changed(user_id, room.nid)

    async def set_member(
        self,
        sender: str,
        room_id: str,
        target: str,
        content: Mapping[str, Any],
        *,
        origin_server_ts: int | None = None,
    ) -> StoredEvent:
        """Send an ``m.room.member`` event as a client wrote it, at the clock's time unless another is given.

        ``M_BAD_JSON`` for one without a membership, ``M_INVALID_PARAM`` for one of no user.
        """
        if not is_user_id(target):
            raise invalid_param("A membership is that of a user")
        membership = content.get("membership")
        if not isinstance(membership, str):
            raise bad_json("A member event needs a membership")
        content = {name: value for name, value in content.items() if name != AUTHORISER}
        if membership == "invite":
            return await self.invite(sender, room_id, target, content, origin_server_ts=origin_server_ts)
        if membership == "join" and sender == target:
            return await self.joining.join_as_written(sender, room_id, content, origin_server_ts)
        return await self._members.change(sender, room_id, target, content, origin_server_ts=origin_server_ts)

    async def joined_rooms(self, user_id: str) -> list[str]:
        """The ids of the rooms a local user is joined to."""
        rows = await room_storage.local_memberships_of(self._db.scan, user_id)
        joined = [row.room_nid for row in rows if row.membership == "join"]
        return [row.room_id for row in (await room_storage.by_nids(self._db.scan, joined)).values()]

    async def profile_changed(self, user_id: str, displayname: str | None, avatar_url: str | None) -> None:
        """Show a user's new profile in every room they are joined to; a room that refuses it is logged."""
        content = {**profile_content(displayname, avatar_url), "membership": "join"}
        for row in await room_storage.local_memberships_of(self._db.scan, user_id):
            if row.membership != "join":
                continue
            room = await self._rooms.by_nid(row.room_nid)
            try:
                await self._members.change(user_id, room.room_id, user_id, content, only_from=("join",))
            except (MatrixError, NotAllowed) as error:
                _log.warning("profile not shown", user_id=user_id, room_id=room.room_id, reason=str(error))
