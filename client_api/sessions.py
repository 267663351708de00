"""Logging in and out, and refreshing access tokens (client-server API, "Login")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from client_api.accounts import login_reply, refreshed_reply
from homeserver.appservices.accounts import APPLICATION_SERVICE
from homeserver.config.login import Login as Ways
from homeserver.errors import MatrixError, missing_param
from homeserver.replies import Reply
from homeserver.users.accounts import Accounts
from homeserver.users.confirmation import SSO, Confirmation
from homeserver.users.interactive_auth import PASSWORD, Operation
from homeserver.users.login_tokens import LoginTokens
from homeserver.users.sessions import Sessions
from homeserver.web import Request

TOKEN = "m.login.token"


class _Login(msgspec.Struct):
    type: str
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class _Refresh(msgspec.Struct):
    refresh_token: str


class SessionApi:
    """Endpoints that begin, continue and end sessions.

    ``identity_providers`` are those of single sign-on, as clients are told of them.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        public_base_url: str | None,
        *,
        ways: Ways,
        login_tokens: LoginTokens,
        confirmation: Confirmation,
        identity_providers: Sequence[dict[str, str]] = (),
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._public_base_url = public_base_url
        self._ways = ways
        self._login_tokens = login_tokens
        self._confirmation = confirmation
        self._identity_providers = list(identity_providers)

    async def login_flows(self, request: Request) -> Reply:
        """``GET /login``."""
        flows: list[dict[str, Any]] = []
        if self._ways.password:
            flows.append({"type": PASSWORD})
        if self._identity_providers:
            flows.append({"type": SSO, "identity_providers": self._identity_providers})
        if self._ways.token_login:
            flows.append({"type": TOKEN, "get_login_token": True})
        elif self._identity_providers:
            flows.append({"type": TOKEN})
        flows.append({"type": APPLICATION_SERVICE})
        return {"flows": flows}

    async def log_in(self, request: Request) -> Reply:
        """``POST /login``."""
        wanted = request.decode(_Login)
        if wanted.type == PASSWORD and self._ways.password:
            user_id = await self._by_password(wanted, request.json())
        elif wanted.type == TOKEN and (self._ways.token_login or self._identity_providers):
            user_id = await self._by_token(wanted)
        else:
            raise MatrixError(400, "M_UNKNOWN", "This server knows no such type of login")
        login = await self._sessions.log_in(
            user_id,
            device_id=wanted.device_id,
            display_name=wanted.initial_device_display_name,
            refreshable=wanted.refresh_token,
        )
        return {**login_reply(login), **self._well_known()}

    async def _by_password(self, wanted: _Login, body: dict[str, Any]) -> str:
        user = await self._accounts.identified(body)
        if user is None:
            raise MatrixError(400, "M_INVALID_PARAM", "The login names no user")
        if wanted.password is None:
            raise missing_param("'password' is missing")
        return await self._accounts.authenticate(user, wanted.password)

    async def _by_token(self, wanted: _Login) -> str:
        if wanted.token is None:
            raise missing_param("'token' is missing")
        user_id = self._login_tokens.redeem(wanted.token)
        if not await self._accounts.is_active(user_id):
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
        return user_id

    async def login_token(self, request: Request) -> Reply:
        """``POST /login/get_token``; no endpoint where it is not configured."""
        if not self._ways.token_login:
            raise MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request")
        operation = Operation("POST /login/get_token", request.requester.user_id)
        user_id = await self._confirmation.confirm(operation, request.json(empty_ok=True))
        lifetime = self._ways.token_lifetime
        return {
            "login_token": self._login_tokens.issue(user_id, lifetime),
            "expires_in_ms": lifetime * 1000,
        }

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
