"""Where a page of results ended, as an opaque string.

It holds the newest event the search looks at, so that what is sent between two pages changes
nothing, and the place of the last result in the order.  Where there is more than is looked at at
once, the next older part begins at its first place.
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec

from homeserver.errors import invalid_param

Order = Literal["rank", "recent"]
GroupKey = Literal["room_id", "sender"]

_MAX_CHARS = 1_024
_MAX_NUMBER = 2**62


class Place(msgspec.Struct, frozen=True, array_like=True):
    """The place of a result in an order; larger comes first."""

    first: int
    second: int
    third: int

    def __lt__(self, other: Place) -> bool:
        return (self.first, self.second, self.third) < (other.first, other.second, other.third)


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Results that have something in common."""

    key: GroupKey
    value: str


class NextBatch(msgspec.Struct, frozen=True, array_like=True):
    """A ``next_batch``: what comes after a place, of all results or of one group."""

    order: Order
    #: The largest ``event_nid`` that is looked at.
    upto: int
    after: Place
    group: Group | None = None
    #: Results that were counted on the way to ``upto``.
    passed: int = 0

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, order: Order) -> NextBatch:
        """Read one; ``M_INVALID_PARAM`` for what this server never gave out for a search in this order."""
        try:
            if len(text) > _MAX_CHARS or not text.isascii():
                raise ValueError
            batch = _decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise invalid_param("Unknown next_batch") from None
        numbers = (batch.upto, batch.passed, batch.after.first, batch.after.second, batch.after.third)
        if batch.order != order or any(abs(number) > _MAX_NUMBER for number in numbers) or batch.passed < 0:
            raise invalid_param("Unknown next_batch")
        return batch


_decode = msgspec.json.Decoder(NextBatch).decode


def first_batch(order: Order, upto: int, group: Group | None = None, passed: int = 0) -> NextBatch:
    """All up to an event."""
    return NextBatch(order, upto, Place(_MAX_NUMBER, _MAX_NUMBER, _MAX_NUMBER), group, passed)


def place_of(order: Order, score: int, ts: int, nid: int) -> Place:
    """Where a result belongs.

    COMPAT: conformance suites want results of one rank in the order they were sent.
    """
    return Place(ts, nid, 0) if order == "recent" else Place(score, -ts, -nid)
