"""Passwords: argon2id, computed in a thread, and never faster for a user who does not exist."""

from __future__ import annotations

import asyncio
import secrets

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from homeserver.errors import MatrixError, invalid_param

#: Longer ones only cost time.
MAX_PASSWORD_CHARS = 512

#: How many are computed at once: each takes ``memory_kib`` while it runs.
_CONCURRENT = 2


class Passwords:
    """Makes and checks password hashes, in argon2's own text form.

    The costs are OWASP's recommendation for argon2id; hashes made with other costs stay valid.
    """

    def __init__(self, *, minimum_length: int = 8, memory_kib: int = 19_456, time_cost: int = 2) -> None:
        self._minimum_length = minimum_length
        self._hasher = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=1, type=Type.ID
        )
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def check_new(self, password: str) -> None:
        """Whether a password may be chosen: ``M_WEAK_PASSWORD`` or ``M_INVALID_PARAM`` if not."""
        if len(password) < self._minimum_length:
            raise MatrixError(
                400, "M_WEAK_PASSWORD", f"The password must have at least {self._minimum_length} characters"
            )
        if len(password) > MAX_PASSWORD_CHARS:
            raise invalid_param(f"The password has more than {MAX_PASSWORD_CHARS} characters")

    async def hash(self, password: str) -> str:
        """A new hash of a password."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether this is the password; ``None`` costs as much time as a wrong password."""
        if len(password) > MAX_PASSWORD_CHARS:
            return False
        async with self._slots:
            matches = await asyncio.to_thread(self._verify, password, password_hash or self._nobody)
        return matches and password_hash is not None

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False
