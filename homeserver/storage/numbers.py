"""Numbers handed out in memory: stream positions, and the integers that stand for rooms, events and keys.

A number is taken without asking the database.  What makes that safe across a
crash is a durable mark that is always ahead of the numbers in use: after a
restart counting goes on at the mark, and the numbers in between are skipped.
"""

from __future__ import annotations

import asyncio
import struct
from functools import partial

from homeserver.storage.database import Database, Transaction

#: How many numbers are reserved at a time.
_BLOCK = 100_000

#: Stream positions leave room between them for history that is fetched later and belongs there.
_STEPS = {"positions": 1 << 16}

_RESERVE = """
    INSERT INTO sequences (name, reserved) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET reserved = sequences.reserved + $2
    RETURNING reserved
"""


class Sequence:
    """Hands out increasing integers above 0."""

    def __init__(self, db: Database, name: str, last: int, reserved: int) -> None:
        self._db = db
        self._name = name
        self._step = _STEPS.get(name, 1)
        self._reserved = reserved
        self._reserving: asyncio.Future[int] | None = None
        #: The newest number handed out.
        self.last = last

    @classmethod
    async def open(cls, db: Database, name: str) -> Sequence:
        """Go on where the durable mark of ``name`` stands."""
        reserved = await db.write(partial(_reserve, name=name))
        return cls(db, name, reserved - _block(name), reserved)

    def next(self, count: int = 1) -> int:
        """The first of ``count`` numbers; the last of them is ``last``."""
        first = self.last + self._step
        self.last += count * self._step
        if self._reserved - self.last < _block(self._name) // 2 and (
            self._reserving is None or self._reserving.done()
        ):
            self._reserving = self._db.write(partial(_reserve, name=self._name))
            self._reserving.add_done_callback(self._reserved_more)
        if self.last > self._reserved:
            raise RuntimeError(f"sequence {self._name}: numbers are used faster than they can be reserved")
        return first

    def _reserved_more(self, done: asyncio.Future[int]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._reserved = done.result()


async def _reserve(tx: Transaction, name: str) -> int:
    reserved: int = await tx.fetch_value(_RESERVE, name, _block(name))
    return reserved


def _block(name: str) -> int:
    return _BLOCK * _STEPS.get(name, 1)


def pack(numbers: list[int] | tuple[int, ...]) -> bytes:
    """Integers as eight bytes each, big-endian."""
    return struct.pack(f">{len(numbers)}q", *numbers)


def unpack(data: bytes) -> tuple[int, ...]:
    """The inverse of ``pack``."""
    return struct.unpack(f">{len(data) // 8}q", data)
