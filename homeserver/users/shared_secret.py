"""Registration by whoever knows the server's shared secret: for scripts that set a server up.

Not of the Matrix specification: it is how Synapse's admin API registers users, and what tools
and conformance suites made for it use.  Who asks takes a nonce and answers with a code made of
it, the account and the secret, so that the secret never travels and nothing can be replayed.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden

_LIFETIME_S = 60.0
_MAX_NONCES = 1_000


class SharedSecret:
    """Gives out nonces, each good for one try within a minute; without a ``secret`` nothing is given."""

    def __init__(self, secret: str | None, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        #: When each ends, the oldest first.
        self._nonces: OrderedDict[str, float] = OrderedDict()

    def nonce(self) -> str:
        """A new nonce; 400 ``M_UNKNOWN`` where no secret is configured."""
        self._key()
        now = self._clock.monotonic()
        while self._nonces and (len(self._nonces) >= _MAX_NONCES or next(iter(self._nonces.values())) <= now):
            self._nonces.popitem(last=False)
        nonce = secrets.token_hex(64)
        self._nonces[nonce] = now + _LIFETIME_S
        return nonce

    def check(self, nonce: str, mac: str, *, username: str, password: str, admin: bool) -> None:
        """Whether ``mac`` (hexadecimal) was made with the secret; the nonce is used up in any case.

        Raises 400 ``M_UNKNOWN`` for a nonce that is not good, and ``M_FORBIDDEN`` for another code.
        """
        key = self._key()
        ends = self._nonces.pop(nonce, None)
        if ends is None or ends <= self._clock.monotonic():
            raise MatrixError(400, "M_UNKNOWN", "The nonce is not known")
        expected = registration_mac(key, nonce, username=username, password=password, admin=admin)
        if not hmac.compare_digest(expected.encode(), mac.encode()):
            raise forbidden("The MAC is wrong")

    def _key(self) -> str:
        if self._secret is None:
            raise MatrixError(400, "M_UNKNOWN", "Registration by shared secret is not enabled")
        return self._secret


def registration_mac(secret: str, nonce: str, *, username: str, password: str, admin: bool) -> str:
    """The HMAC-SHA1 over what is asked for, in hexadecimal."""
    parts = (nonce, username, password, "admin" if admin else "notadmin")
    return hmac.new(secret.encode(), b"\0".join(part.encode() for part in parts), "sha1").hexdigest()
