"""What a browser keeps for us between two of its requests: sealed, so that it can neither read nor change it.

That keeps nothing in memory for browsers that never come back, and an attempt survives
a restart.  Each may be used once, which is remembered until it would have ended anyway.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict

import msgspec
import nacl.exceptions
from nacl.secret import SecretBox

from homeserver.clock import Clock

_MAX_USED = 50_000
_MAX_SEALED_CHARS = 6_000


class Goal(msgspec.Struct, frozen=True):
    """What signing on is for: to send a client back with a token, or to complete a session's stage."""

    redirect_url: str | None = None
    session: str | None = None


class Attempt(msgspec.Struct, frozen=True, tag="attempt"):
    """Somebody was sent to a provider; ``id`` is the ``state`` they come back with."""

    id: str
    ends_at: int
    provider: str
    nonce: str
    verifier: str
    goal: Goal


class Question(msgspec.Struct, frozen=True, tag="question"):
    """Somebody is signed on as ``user_id``, and is asked whether they meant to."""

    id: str
    ends_at: int
    user_id: str
    goal: Goal


class Seals:
    """Seals and opens; ``secret`` is this server's own."""

    def __init__(self, secret: bytes, clock: Clock, *, max_used: int = _MAX_USED) -> None:
        key = hashlib.blake2b(secret, digest_size=SecretBox.KEY_SIZE, person=b"single sign-on").digest()
        self._box = SecretBox(key)
        self._clock = clock
        self._max_used = max_used
        self._decoder: msgspec.json.Decoder[Attempt | Question] = msgspec.json.Decoder(Attempt | Question)
        self._used: OrderedDict[str, int] = OrderedDict()

    def seal(self, content: Attempt | Question) -> str:
        """The content as text for a cookie."""
        sealed = self._box.encrypt(msgspec.json.encode(content))
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, sealed: str) -> Attempt | Question | None:
        """The content; ``None`` for what we did not seal, what was used and what has ended."""
        try:
            if len(sealed) > _MAX_SEALED_CHARS:
                return None
            data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            content = self._decoder.decode(self._box.decrypt(data))
        except (ValueError, TypeError, nacl.exceptions.CryptoError, msgspec.DecodeError):
            return None
        if content.ends_at <= self._clock.now_ms() or content.id in self._used:
            return None
        return content

    def use_up(self, content: Attempt | Question) -> None:
        """It does not open again."""
        now = self._clock.now_ms()
        while self._used and (len(self._used) >= self._max_used or next(iter(self._used.values())) <= now):
            self._used.popitem(last=False)
        self._used[content.id] = content.ends_at
