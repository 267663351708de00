"""Proving to others who one is (client-server API, "OpenID")."""

from __future__ import annotations

from homeserver.errors import forbidden
from homeserver.replies import Reply
from homeserver.users.openid import LIFETIME_S, OpenIdTokens
from homeserver.web import Request


class OpenIdApi:
    """The endpoint that issues OpenID tokens."""

    def __init__(self, tokens: OpenIdTokens, server_name: str) -> None:
        self._tokens = tokens
        self._server_name = server_name

    async def request_token(self, request: Request) -> Reply:
        """``POST /user/{userId}/openid/request_token``."""
        user_id = request.requester.user_id
        if request.params["userId"] != user_id:
            raise forbidden("A token is for oneself alone")
        request.json(empty_ok=True)
        return {
            "access_token": await self._tokens.issue(user_id),
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": LIFETIME_S,
        }
