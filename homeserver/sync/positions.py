"""Sync tokens: what a client has seen, as an opaque string.

A token holds a stream position, which outlives the server, and an ephemeral one,
which counts typing and presence changes and starts anew with every start of the
server; the start's time keeps tokens of different runs apart.
"""

from __future__ import annotations

import msgspec

from homeserver.errors import invalid_param

_VERSION = "s1"
#: What is longer is no position, and fits into no database.
_MAX_DIGITS = 18


class SyncToken(msgspec.Struct, frozen=True, gc=False):
    """A place in the streams: everything at or before these positions has been seen."""

    pos: int
    ephemeral: int = 0
    #: For messages to the device, where they are given out more slowly; ``None``: up to ``pos``.
    to_device: int | None = None
    #: The same for sticky events that are not in timelines.
    sticky: int | None = None

    def __str__(self) -> str:
        text = f"{_VERSION}_{self.pos}_{self.ephemeral}"
        if self.sticky is not None:
            return f"{text}_{self.pos if self.to_device is None else self.to_device}_{self.sticky}"
        return text if self.to_device is None else f"{text}_{self.to_device}"

    @property
    def is_whole(self) -> bool:
        """Whether everything up to ``pos`` was given out: nothing of it is to come in parts."""
        return self.to_device is None and self.sticky is None

    def after_events(self, pos: int) -> SyncToken:
        """The token of a client that has since seen the events up to a position, and nothing else."""
        to_device = self.pos if self.to_device is None else self.to_device
        return SyncToken(pos, self.ephemeral, to_device, self.sticky)

    @classmethod
    def parse(cls, text: str) -> SyncToken:
        """Read a token; raises ``M_INVALID_PARAM`` for anything this server never gave out.

        A position of sliding sync is a token with a connection's mark behind it.
        """
        text = text.partition("~")[0]
        version, *numbers = text.split("_")
        if version != _VERSION or len(numbers) not in {2, 3, 4}:
            raise invalid_param("Unknown token")
        digits = [number.removeprefix("-") for number in numbers]
        if not all(one.isascii() and one.isdecimal() and len(one) <= _MAX_DIGITS for one in digits):
            raise invalid_param("Unknown token")
        return cls(*map(int, numbers))


class EphemeralPositions:
    """Hands out positions for what is only kept in memory; later runs of the server count higher."""

    def __init__(self, started_ms: int) -> None:
        self.last = started_ms * 1000

    def next(self) -> int:
        """A new position."""
        self.last += 1
        return self.last
