"""How long a room's messages live: what its ``m.room.retention`` event wishes, within a server's bounds.

Times are in milliseconds throughout.  Specification: MSC1763.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

#: The state event by which a room says so.
RETENTION = ("m.room.retention", "")

_MAX_LIFETIME = 2**53 - 1


class Lifetimes(msgspec.Struct, frozen=True, gc=False):
    """A server's policy; ``None`` for no bound."""

    #: For rooms that do not say.
    default_min: int | None = None
    default_max: int | None = None
    #: What a room may ask for: more or less than that becomes it.
    allowed_min: int | None = None
    allowed_max: int | None = None


def max_lifetime(content: Mapping[str, Any] | None, server: Lifetimes) -> int | None:
    """After how long a message of a room is over; ``None``: never.

    ``content`` is that of the room's ``m.room.retention`` event.  One that makes no sense (a
    value that is no time, a minimum above the maximum) counts for nothing.
    """
    wished_min, wished_max = _wish(content or {})
    longest = server.default_max if wished_max is None else _within(wished_max, server)
    shortest = server.default_min if wished_min is None else _within(wished_min, server)
    if longest is None or shortest is None:
        return longest
    # What has to be kept for some time is not over before that, whoever said the one and the other.
    return max(longest, shortest) if wished_max is None else longest


def _wish(content: Mapping[str, Any]) -> tuple[int | None, int | None]:
    given = {name: content[name] for name in ("min_lifetime", "max_lifetime") if name in content}
    if not all(type(value) is int and 0 <= value <= _MAX_LIFETIME for value in given.values()):
        return None, None
    shortest, longest = given.get("min_lifetime"), given.get("max_lifetime")
    if shortest is not None and longest is not None and shortest > longest:
        return None, None
    return shortest, longest


def _within(wished: int, server: Lifetimes) -> int:
    if server.allowed_min is not None:
        wished = max(wished, server.allowed_min)
    if server.allowed_max is not None:
        wished = min(wished, server.allowed_max)
    return wished
