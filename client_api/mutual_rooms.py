"""Rooms that two users share (client-server API, "Mutual Rooms")."""

from __future__ import annotations

from homeserver.errors import invalid_param, missing_param
from homeserver.protocol.ids import is_user_id
from homeserver.replies import Reply
from homeserver.storage import sharing
from homeserver.storage.database import Database
from homeserver.web import Request

_BATCH = 100
_MAX_DIGITS = 18


class MutualRoomsApi:
    """The endpoint that tells of shared rooms."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def mutual_rooms(self, request: Request) -> Reply:
        """``GET /mutual_rooms``; ``count`` is that of all batches."""
        return await self._shared(request, "from", "next_batch")

    async def unstable(self, request: Request) -> Reply:
        """``GET /uk.half-shot.msc2666/user/mutual_rooms``.

        COMPAT: clients ask here until they know v1.19 of the specification.
        """
        return await self._shared(request, "batch_token", "next_batch_token")

    async def _shared(self, request: Request, from_: str, next_: str) -> Reply:
        user_id, other = request.requester.user_id, request.query.get("user_id")
        if other is None:
            raise missing_param("The query parameter 'user_id' is missing")
        if not is_user_id(other) or other == user_id:
            raise invalid_param("'user_id' is not the ID of another user")
        after = _token(request.query.get(from_))
        shared = await sharing.mutual_rooms(self._db.scan, user_id, other)
        left = [nid for nid in sorted(shared) if nid > after]
        batch = left[:_BATCH]
        reply = {"joined": [shared[nid] for nid in batch], "count": len(shared)}
        return {**reply, next_: f"m{batch[-1]}"} if len(left) > _BATCH else reply


def _token(text: str | None) -> int:
    """The number of the room that the batch before ended with; ``M_INVALID_PARAM`` for no token of ours."""
    if text is None:
        return 0
    digits = text.removeprefix("m")
    if digits == text or not (digits.isascii() and digits.isdecimal()) or len(digits) > _MAX_DIGITS:
        raise invalid_param("Unknown token")
    return int(digits)
