"""Sync tokens: what a client has seen, as an opaque string.

A token holds a stream position, which outlives the server, and an ephemeral one,
which counts typing and presence changes and starts anew with every start of the
server; the start's time keeps tokens of different runs apart.
"""

from __future__ import annotations

import msgspec

from homeserver.errors import invalid_param

_VERSION = "s1"


class SyncToken(msgspec.Struct, frozen=True, gc=False):
    """A place in the streams: everything at or before both positions has been seen."""

    pos: int
    ephemeral: int = 0

    def __str__(self) -> str:
        return f"{_VERSION}_{self.pos}_{self.ephemeral}"

    @classmethod
    def parse(cls, text: str) -> SyncToken:
        """Read a token; raises ``M_INVALID_PARAM`` for anything this server never gave out."""
        version, *numbers = text.split("_")
        if version != _VERSION or len(numbers) != 2:
            raise invalid_param("Unknown token")
        if not all(
            number.isascii() and number.lstrip("-").isdecimal() and len(number) < 20 for number in numbers
        ):
            raise invalid_param("Unknown token")
        return cls(int(numbers[0]), int(numbers[1]))


class EphemeralPositions:
    """Hands out positions for what is only kept in memory; later runs of the server count higher."""

    def __init__(self, started_ms: int) -> None:
        self.last = started_ms * 1000

    def next(self) -> int:
        """A new position."""
        self.last += 1
        return self.last
