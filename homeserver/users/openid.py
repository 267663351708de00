"""OpenID tokens: how a user proves to a third party who they are, and nothing else.

A token says whose it is, for an hour, to whoever has it; it opens no other endpoint.
Stored as its SHA-256.  Specification: client-server API, "OpenID".
"""

from __future__ import annotations

import hashlib
import secrets
from functools import partial

from homeserver.clock import Clock
from homeserver.errors import MatrixError
from homeserver.storage import openid_tokens, users
from homeserver.storage.database import Database

LIFETIME_S = 3600


class OpenIdTokens:
    """Issues tokens to local users, and says whose a token is."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def issue(self, user_id: str) -> str:
        """A new token, good for ``LIFETIME_S`` seconds."""
        token = secrets.token_urlsafe(32)
        expires_at = self._clock.now_ms() + LIFETIME_S * 1000
        await self._db.write(
            partial(openid_tokens.add, token_hash=_hashed(token), user_id=user_id, expires_at=expires_at)
        )
        return token

    async def user_of(self, token: str) -> str:
        """Whose token it is; 401 ``M_UNKNOWN_TOKEN`` for one that says nothing, or not any more."""
        user_id = await openid_tokens.user_of(self._db.read, _hashed(token), self._clock.now_ms())
        user = await users.user(self._db.read, user_id) if user_id is not None else None
        if user is None or user.deactivated:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "Access token unknown or expired")
        return user.user_id

    async def forget_expired(self) -> None:
        """Delete the tokens that have expired."""
        await self._db.write(partial(openid_tokens.remove_expired, now=self._clock.now_ms()))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
