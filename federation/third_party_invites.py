"""Third-party invites that come true: notified by identity servers, exchanged by other homeservers.

Specification: server-server API, "Third-party invites".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from homeserver.errors import bad_json, invalid_param, limit_exceeded, not_found
from homeserver.replies import Reply
from homeserver.rooms.third_party_invites import MAX_PENDING, PartialInvite, PendingInvite, ThirdPartyInvites
from homeserver.tasks import Background
from homeserver.web import Request

#: Notifications that are seen to at once: nobody signs them, so anybody could send any number.
_MOST_UNDER_WAY: Final = 20
_RETRY_AFTER_MS: Final = 60_000


class _Bound(msgspec.Struct):
    """What an identity server tells of an address that is now somebody's."""

    medium: str
    address: str
    mxid: str
    invites: list[PendingInvite]


class ThirdPartyInviteEndpoints:
    """The endpoints by which third-party invites become invites."""

    def __init__(
        self,
        *,
        invites: ThirdPartyInvites,
        is_local_user: Callable[[str], Awaitable[bool]],
        background: Background,
    ) -> None:
        self._invites = invites
        self._is_local_user = is_local_user
        self._background = background
        self._under_way = 0

    async def exchange(self, request: Request) -> Reply:
        """``PUT /exchange_third_party_invite/{roomId}``."""
        invite = request.decode(PartialInvite)
        if invite.room_id != request.params["roomId"]:
            raise invalid_param("The event is for another room")
        await self._invites.exchange(request.origin, invite)
        return {}

    async def on_bind(self, request: Request) -> Reply:
        """``PUT /3pid/onbind``: anybody may say so, for the statements in it are signed.

        The invites are seen to after the answer, for other servers have to be asked.
        """
        bound = request.decode(_Bound)
        if len(bound.invites) > MAX_PENDING:
            raise bad_json(f"More than {MAX_PENDING} invites")
        if not await self._is_local_user(bound.mxid):
            raise not_found("There is no such user")
        if self._under_way >= _MOST_UNDER_WAY:
            raise limit_exceeded(_RETRY_AFTER_MS)
        self._under_way += 1
        self._background.start(self._redeem(bound), "third-party invites")
        return {}

    async def _redeem(self, bound: _Bound) -> None:
        try:
            await self._invites.redeem(bound.mxid, bound.invites)
        finally:
            self._under_way -= 1
