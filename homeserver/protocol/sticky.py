"""Sticky events (MSC4354): which events stick, and until when.

An event says so by a key beside its content, which a redaction takes away.
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.protocol.events import Event

#: The key in an event, with ``duration_ms`` in it.
STICKY = "msc4354_sticky"
#: Events stick for an hour at most.
MAX_STICKY_MS = 3_600_000

_KEY = b'"msc4354_sticky":'


class _Sticky(msgspec.Struct, gc=False):
    msc4354_sticky: Any = None


_decode = msgspec.json.Decoder(_Sticky).decode


def sticky_of(event: Event) -> Any:
    """What an event has at its key, whatever that is; ``None`` for nothing.

    Costs next to nothing for the events without the key, which are nearly all.
    """
    return _decode(event.json).msc4354_sticky if _KEY in event.json else None


def sticky_ms(event: Event) -> int | None:
    """For how many milliseconds an event sticks; ``None`` for one that does not."""
    sticky = sticky_of(event)
    if not isinstance(sticky, dict):
        return None
    duration = sticky.get("duration_ms")
    if not isinstance(duration, int) or isinstance(duration, bool):
        return None
    return duration if 0 <= duration <= MAX_STICKY_MS else None


def sticks_until(event: Event, duration_ms: int, received_ts: int) -> int:
    """When an event ceases to stick, in milliseconds since the epoch.

    It begins when it was sent, but not later than when it came: no server can say that it begins in the
    future.
    """
    return min(received_ts, event.origin_server_ts) + min(duration_ms, MAX_STICKY_MS)
