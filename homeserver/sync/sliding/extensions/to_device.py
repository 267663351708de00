"""Messages to the device, with a token of their own: the ``to_device`` extension.

They wait where ``/sync`` finds them too; whichever shows first that it has them, deletes them.
Specification: MSC3885.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from homeserver.errors import invalid_param
from homeserver.sync.positions import SyncToken
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sliding.extensions.asked import limit_in, text_in
from homeserver.users.to_device import ToDevice

#: Messages told at once.
MAX_MESSAGES = 100

_MAX_DIGITS = 18


class ToDeviceExtension:
    """Tells a device of its messages until it shows to have them."""

    names = ("to_device",)

    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``; the token is always told, so that clients have one to keep."""
        limit, upto = limit_in(asked, MAX_MESSAGES), reading.now.pos
        after = min(_position(text_in(asked, "since")), upto)
        if reading.device_id is None:
            return {"next_batch": str(upto), "events": []}, False
        device = (reading.user_id, reading.device_id)
        waiting = await self._to_device.waiting_after(*device, after, upto, limit=limit)
        last = waiting[-1][0] if len(waiting) == limit else upto
        events = [orjson.Fragment(message) for _, message in waiting]
        return {"next_batch": str(last), "events": events}, bool(events)


def _position(token: str | None) -> int:
    """What a token stands for; ``M_INVALID_PARAM`` for one that was never given out."""
    if token is None:
        return 0
    if "_" in token:  # the client followed /sync before, and kept one token for both
        before = SyncToken.parse(token)
        return max(before.pos if before.to_device is None else before.to_device, 0)
    if not token.isascii() or not token.isdecimal() or len(token) > _MAX_DIGITS:
        raise invalid_param("'since' of to_device is no token of this server")
    return int(token)
