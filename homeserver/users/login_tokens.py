"""Login tokens: good for one login, within minutes.

Kept in memory as their SHA-256; a restart ends them, and their users ask for another.
Specification: client-server API, "Token-based user login".
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

import msgspec

from homeserver.clock import Clock
from homeserver.errors import forbidden

_MAX_TOKENS = 10_000
#: Of one user: who asks for more ends their oldest.
_MAX_PER_USER = 20


class _Token(msgspec.Struct, frozen=True):
    user_id: str
    ends_at: float


class LoginTokens:
    """Gives out tokens, and says once whose each is."""

    def __init__(self, clock: Clock, *, max_tokens: int = _MAX_TOKENS) -> None:
        self._clock = clock
        self._max_tokens = max_tokens
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        self._of_user: dict[str, list[bytes]] = {}

    def issue(self, user_id: str, lifetime_s: float) -> str:
        """A new token for a user, good for so many seconds."""
        own = self._of_user.get(user_id, [])
        if len(own) >= _MAX_PER_USER:
            self._remove(own[0])
        while len(self._tokens) >= self._max_tokens:
            self._remove(next(iter(self._tokens)))
        token = secrets.token_urlsafe(32)
        hashed = _hash(token)
        self._tokens[hashed] = _Token(user_id, self._clock.monotonic() + lifetime_s)
        self._of_user.setdefault(user_id, []).append(hashed)
        return token

    def redeem(self, token: str) -> str:
        """Whose token it is, which ends with that; 403 ``M_FORBIDDEN`` for one that is not good."""
        found = self._remove(_hash(token))
        if found is None or found.ends_at <= self._clock.monotonic():
            raise forbidden("The login token is not known, was used, or came too late")
        return found.user_id

    def _remove(self, hashed: bytes) -> _Token | None:
        token = self._tokens.pop(hashed, None)
        if token is not None:
            own = self._of_user[token.user_id]
            own.remove(hashed)
            if not own:
                del self._of_user[token.user_id]
        return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
