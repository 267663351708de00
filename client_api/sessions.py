"""Logging in and out, and refreshing access tokens (client-server API, "Login")."""

from __future__ import annotations

from typing import Any

import msgspec

from client_api.accounts import login_reply, refreshed_reply
from homeserver.errors import MatrixError, missing_param
from homeserver.users.accounts import Accounts
from homeserver.users.interactive_auth import PASSWORD
from homeserver.users.sessions import Sessions
from homeserver.web import Reply, Request


class _Login(msgspec.Struct):
    type: str
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class _Refresh(msgspec.Struct):
    refresh_token: str


class SessionApi:
    """Endpoints that begin, continue and end sessions."""

    def __init__(self, accounts: Accounts, sessions: Sessions, public_base_url: str | None) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._public_base_url = public_base_url

    async def login_flows(self, request: Request) -> Reply:
        """``GET /login``."""
        return {"flows": [{"type": PASSWORD}]}

    async def log_in(self, request: Request) -> Reply:
        """``POST /login``."""
        wanted = request.decode(_Login)
        if wanted.type != PASSWORD:
            raise MatrixError(400, "M_UNKNOWN", "This server knows no such type of login")
        user = await self._accounts.identified(request.json())
        if user is None:
            raise MatrixError(400, "M_INVALID_PARAM", "The login names no user")
        if wanted.password is None:
            raise missing_param("'password' is missing")
        user_id = await self._accounts.authenticate(user, wanted.password)
        login = await self._sessions.log_in(
            user_id,
            device_id=wanted.device_id,
            display_name=wanted.initial_device_display_name,
            refreshable=wanted.refresh_token,
        )
        return {**login_reply(login), **self._well_known()}

    async def refresh(self, request: Request) -> Reply:
        """``POST /refresh``."""
        login = await self._sessions.refresh(request.decode(_Refresh).refresh_token)
        return {"access_token": login.access_token, **refreshed_reply(login)}

    async def log_out(self, request: Request) -> Reply:
        """``POST /logout``."""
        if request.requester.device_id is not None:
            await self._sessions.log_out(request.requester.user_id, [request.requester.device_id])
        return {}

    async def log_out_everywhere(self, request: Request) -> Reply:
        """``POST /logout/all``."""
        await self._sessions.log_out_everywhere(request.requester.user_id)
        return {}

    def _well_known(self) -> dict[str, Any]:
        if self._public_base_url is None:
            return {}
        return {"well_known": {"m.homeserver": {"base_url": self._public_base_url}}}
