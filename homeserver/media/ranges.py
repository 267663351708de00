"""Which bytes of a file are asked for: ``Range``, ``If-Range`` and ``If-None-Match`` (RFC 9110, 13 and 14).

Media never changes, so that the name of its file is a strong validator.  Several ranges
at once are not served: a server may always answer with the whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)


class Part(msgspec.Struct, frozen=True):
    """What to send: the status, and of the file ``length`` bytes from ``start``."""

    status: int
    start: int
    length: int


def part_asked_for(headers: Mapping[str, str], etag: str, size: int) -> Part:
    """200 with everything, 206 with some of it, or 304 and 416 with nothing."""
    known = headers.get("If-None-Match")
    if known is not None and (known.strip() == "*" or etag in _etags(known)):
        return Part(304, 0, 0)
    asked = headers.get("Range")
    if asked is None or headers.get("If-Range", etag).strip() != etag:
        return Part(200, 0, size)
    found = _RANGE.fullmatch(asked)
    if found is None or not (found[1] or found[2]):
        return Part(200, 0, size)
    if not found[1]:
        start, end = max(size - int(found[2]), 0), size
    else:
        start, end = int(found[1]), min(int(found[2] or size) + 1, size)
        if found[2] and int(found[2]) < start:
            return Part(200, 0, size)
    return Part(206, start, end - start) if start < end else Part(416, 0, 0)


def _etags(header: str) -> list[str]:
    return [each.strip().removeprefix("W/") for each in header.split(",")]
