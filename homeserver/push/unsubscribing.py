"""Links that end notifications by email, for whoever has the mail and is logged in nowhere.

A link names its pusher and is signed by this server, so that nothing is kept for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import orjson

from homeserver.errors import forbidden
from homeserver.push.pushers import Pushers
from homeserver.storage.pushers import Pusher

PATH: Final = "/_inglenook/client/push/unsubscribe"

_PURPOSE: Final = b"inglenook: unsubscribe from notifications"
_MAX_TOKEN: Final = 4_096


class Unsubscribing:
    """Makes such links, and does what they ask for; ``secret`` is this server's alone."""

    def __init__(self, pushers: Pushers, secret: bytes, base_url: str) -> None:
        self._pushers = pushers
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)
        self._base_url = base_url

    def link(self, pusher: Pusher) -> str:
        """The link that ends a pusher."""
        named = orjson.dumps(pusher.key)
        token = base64.urlsafe_b64encode(self._signature(named) + named).rstrip(b"=").decode()
        return f"{self._base_url}{PATH}?token={token}"

    def pusher(self, token: str) -> tuple[str, str, str]:
        """User, app id and pushkey of the pusher that a token ends; ``M_FORBIDDEN`` for what is none."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            data = b""
        signature, named = data[:32], data[32:]
        if len(token) > _MAX_TOKEN or not hmac.compare_digest(signature, self._signature(named)):
            raise forbidden("This link is not complete, or not from this server")
        user_id, app_id, pushkey = orjson.loads(named)
        return user_id, app_id, pushkey

    async def unsubscribe(self, token: str) -> None:
        """End the pusher that a token names, if it is still there."""
        await self._pushers.remove(*self.pusher(token))

    def _signature(self, named: bytes) -> bytes:
        return hmac.digest(self._key, named, hashlib.sha256)
