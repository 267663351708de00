"""A member event sent in a room this server is in, once what it says is settled.

Who may change whose membership is left to the auth rules, but for what they cannot know:
that a kick or an unban needs somebody to be removed, and that the room's state may not be
here whole.  Specification: client-server API, "Room membership".
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from homeserver.errors import MatrixError, forbidden
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.state_store import StateStore
from homeserver.storage.events import StoredEvent


class MemberEvents:
    """Sends them, and gives the rooms they are sent in."""

    def __init__(self, rooms: Rooms, states: StateStore, send: Send) -> None:
        self._rooms = rooms
        self._states = states
        self._send = send

    @again_when_stale
    async def change(
        self,
        sender: str,
        room_id: str,
        target: str,
        content: Mapping[str, Any],
        *,
        only_from: Collection[str] | None = None,
        refusal: MatrixError | None = None,
        origin_server_ts: int | None = None,
    ) -> StoredEvent:
        """Send a member event in a room this server is in.

        ``refusal`` is raised unless the target's membership is one of ``only_from``.  What
        the sender has said already is not said again.
        """
        await self.settle_member(room_id, target)
        async with self.here(room_id) as room:
            member = await self._states.member(room, target)
            if only_from is not None:
                # Who is not in the room does not learn who is, or is banned.
                if membership_of(await self._states.member(room, sender)) != "join" and sender != target:
                    raise forbidden("You are not in this room")
                if membership_of(member) not in only_from:
                    raise refusal or forbidden(f"{target} is not in the room")
            if member is not None and says(member, sender, content):
                await room.settle()
                return member
            draft = Draft(sender, MEMBER, content, state_key=target, origin_server_ts=origin_server_ts)
            written = await self._send.stage(room, draft)
        return (await written)[0]

    async def settle_member(self, room_id: str, user_id: str) -> None:
        """Wait for the rest of a room's state where it is not known what somebody is in it."""
        room = await self._rooms.get(room_id)
        if room.partial is not None and await self._states.member(room, user_id) is None:
            await self._rooms.whole(room)

    @contextlib.asynccontextmanager
    async def here(self, room_id: str) -> AsyncIterator[Room]:
        """The room with its lock held; ``M_FORBIDDEN`` where this server is not in it."""
        async with self._rooms.lock(room_id) as room:
            if not self._rooms.is_in(room):
                raise forbidden("You are not in this room")
            yield room

    @contextlib.asynccontextmanager
    async def settled(self, room_id: str) -> AsyncIterator[Room]:
        """The room with its lock held and nothing left to write: what is composed then outlives the lock."""
        while True:
            async with self.here(room_id) as room:
                await room.settle()
                if not room.broken:
                    yield room
                    return


def says(member: StoredEvent, sender: str, content: Mapping[str, Any]) -> bool:
    """Whether a member event is what ``sender`` would say now."""
    return member.event.sender == sender and member.event.content == content
