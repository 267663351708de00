"""Typing, receipts, read markers and presence: what people do without sending events."""

from __future__ import annotations

import msgspec

from homeserver.errors import forbidden
from homeserver.replies import Reply
from homeserver.rooms.receipts import FULLY_READ, READ, READ_PRIVATE, Receipts
from homeserver.sync.typing import DEFAULT_TIMEOUT_MS, Typing
from homeserver.users.presence import Presence, PresenceState
from homeserver.web import Request


class _Typing(msgspec.Struct, frozen=True):
    typing: bool
    timeout: int = DEFAULT_TIMEOUT_MS


class _Receipt(msgspec.Struct, frozen=True):
    thread_id: object = None


class _ReadMarkers(msgspec.Struct, frozen=True):
    fully_read: str | None = msgspec.field(default=None, name=FULLY_READ)
    read: str | None = msgspec.field(default=None, name=READ)
    read_private: str | None = msgspec.field(default=None, name=READ_PRIVATE)


class _Presence(msgspec.Struct, frozen=True):
    presence: PresenceState
    status_msg: str | None = None


class EphemeralApi:
    """Endpoints for what does not stay."""

    def __init__(self, typing: Typing, receipts: Receipts, presence: Presence) -> None:
        self._typing = typing
        self._receipts = receipts
        self._presence = presence

    async def set_typing(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/typing/{userId}``."""
        user_id = request.requester.user_id
        if request.params["userId"] != user_id:
            raise forbidden("Nobody types for somebody else")
        wish = request.decode(_Typing)
        await self._typing.set_typing(user_id, request.params["roomId"], wish.typing, wish.timeout)
        await self._presence.active(user_id)
        return {}

    async def send_receipt(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/receipt/{receiptType}/{eventId}``."""
        thread_id = request.decode(_Receipt, empty_ok=True).thread_id
        if thread_id is not None and not isinstance(thread_id, str):
            thread_id = ""  # refused like every thread id that is none
        user_id, params = request.requester.user_id, request.params
        await self._receipts.read(
            user_id, params["roomId"], params["receiptType"], params["eventId"], thread_id
        )
        await self._presence.active(user_id)
        return {}

    async def set_read_markers(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/read_markers``."""
        markers = request.decode(_ReadMarkers)
        user_id, room_id = request.requester.user_id, request.params["roomId"]
        for type_, event_id in (
            (READ, markers.read),
            (READ_PRIVATE, markers.read_private),
            (FULLY_READ, markers.fully_read),
        ):
            if event_id is not None:
                await self._receipts.read(user_id, room_id, type_, event_id)
        return {}

    async def presence(self, request: Request) -> Reply:
        """``GET /presence/{userId}/status``."""
        user_id = request.params["userId"]
        if not await self._presence.may_see(request.requester.user_id, user_id):
            raise forbidden("You share no room with this user")
        return self._presence.content(await self._presence.of(user_id))

    async def set_presence(self, request: Request) -> Reply:
        """``PUT /presence/{userId}/status``."""
        user_id = request.requester.user_id
        if request.params["userId"] != user_id:
            raise forbidden("Nobody is present for somebody else")
        wish = request.decode(_Presence)
        await self._presence.set_state(user_id, wish.presence, wish.status_msg, request.requester.device_id)
        return {}
