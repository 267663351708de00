"""What administrators may see and do (client-server API, "Server administration")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.errors import forbidden, invalid_param, not_found
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.replies import Reply
from homeserver.storage.last_seen import Use
from homeserver.users.accounts import Accounts
from homeserver.users.last_seen import LastSeen
from homeserver.users.moderation import Moderation
from homeserver.web import Request


class _Lock(msgspec.Struct):
    locked: bool


class _Suspension(msgspec.Struct):
    suspended: bool


class AdministrationApi:
    """Endpoints about other people's accounts."""

    def __init__(
        self, moderation: Moderation, accounts: Accounts, last_seen: LastSeen, server_name: str
    ) -> None:
        self._moderation = moderation
        self._accounts = accounts
        self._last_seen = last_seen
        self._server_name = server_name

    async def whois(self, request: Request) -> Reply:
        """``GET /admin/whois/{userId}``: for the user and for administrators."""
        requester, user_id = request.requester, request.params["userId"]
        if user_id != requester.user_id and not requester.is_admin:
            raise forbidden("You are not an administrator of this server")
        if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise invalid_param("That is not a user of this server")
        if user_id != requester.user_id and await self._accounts.user(user_id) is None:
            raise not_found("There is no such user")
        uses = await self._last_seen.of(user_id)
        return {
            "user_id": user_id,
            "devices": {device_id: _device(use) for device_id, use in uses.items()},
        }

    async def lock(self, request: Request) -> Reply:
        """``GET /admin/lock/{userId}``."""
        standing = await self._moderation.standing(request.requester, request.params["userId"])
        return {"locked": standing.locked}

    async def set_lock(self, request: Request) -> Reply:
        """``PUT /admin/lock/{userId}``."""
        requester, user_id = request.requester, request.params["userId"]
        wanted = request.decode(_Lock)
        await self._moderation.set_locked(requester, user_id, wanted.locked)
        return {"locked": wanted.locked}

    async def suspension(self, request: Request) -> Reply:
        """``GET /admin/suspend/{userId}``."""
        standing = await self._moderation.standing(request.requester, request.params["userId"])
        return {"suspended": standing.suspended}

    async def set_suspension(self, request: Request) -> Reply:
        """``PUT /admin/suspend/{userId}``."""
        requester, user_id = request.requester, request.params["userId"]
        wanted = request.decode(_Suspension)
        await self._moderation.set_suspended(requester, user_id, wanted.suspended)
        return {"suspended": wanted.suspended}


def _device(use: Use) -> dict[str, Any]:
    connection = {"ip": use.ip, "last_seen": use.at, "user_agent": use.user_agent}
    known = {name: value for name, value in connection.items() if value is not None}
    return {"sessions": [{"connections": [known]}]}
