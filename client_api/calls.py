"""Relays for calls (client-server API, "Voice over IP"), and what calls of many go through (MSC4143).

With a shared secret each user's password is made of it and ends with the time in the
name, as in draft-uberti-behave-turn-rest; the relays know the secret too.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.clock import Clock
from homeserver.config.surroundings import Turn
from homeserver.replies import Reply
from homeserver.web import Request


class CallsApi:
    """The endpoints that say which machines there are for calls."""

    def __init__(self, turn: Turn, clock: Clock, rtc_transports: Sequence[Mapping[str, Any]] = ()) -> None:
        self._turn = turn
        self._rtc_transports = [dict(transport) for transport in rtc_transports]
        self._clock = clock

    async def turn_server(self, request: Request) -> Reply:
        """``GET /voip/turnServer``; empty where there are no relays."""
        turn = self._turn
        if not turn.uris:
            return {}
        if turn.shared_secret is not None:
            ends_at = self._clock.now_ms() // 1000 + turn.ttl
            username = f"{ends_at}:{request.requester.user_id}"
            password = relay_password(turn.shared_secret, username)
        else:
            username, password = turn.username or "", turn.password or ""
        return {"username": username, "password": password, "uris": list(turn.uris), "ttl": turn.ttl}

    async def rtc_transports(self, request: Request) -> Reply:
        """``GET /rtc/transports``: those to be preferred first."""
        return {"rtc_transports": self._rtc_transports}


def relay_password(secret: str, username: str) -> str:
    """The password that goes with a name at relays that share a secret."""
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
