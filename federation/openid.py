"""Telling whose an OpenID token is (server-server API, "OpenID"); whoever has the token may ask."""

from __future__ import annotations

from homeserver.replies import Reply
from homeserver.users.openid import OpenIdTokens
from homeserver.web import Request


class OpenIdEndpoint:
    """The endpoint that knows OpenID tokens."""

    def __init__(self, tokens: OpenIdTokens) -> None:
        self._tokens = tokens

    async def user_info(self, request: Request) -> Reply:
        """``GET /openid/userinfo``."""
        return {"sub": await self._tokens.user_of(request.query_text("access_token"))}
