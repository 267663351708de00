"""What a storage engine offers: one way to read, one way to write, for two engines.

Storage functions are ``async def`` functions over a ``Reader`` or a
``Transaction`` and hold each query once, in the SQL that SQLite and PostgreSQL
share, with ``$1`` parameters.  On SQLite such a function runs to its end without
ever suspending (reads on the loop's own connection, writes on the writer
thread); on PostgreSQL each statement is a round trip.  That is also why nothing
but the reader or transaction may be awaited inside one: SQLite refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeVar

#: A row: positional access only (``row[0]`` or unpacking), alike on both engines.
Row = Sequence[Any]

T = TypeVar("T")


class Reader(Protocol):
    """Runs queries.  Arguments are ``int``, ``float``, ``str``, ``bytes`` or ``None``."""

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        """All rows of a query."""
        ...

    async def fetch_row(self, sql: str, *args: Any) -> Row | None:
        """The first row of a query, or ``None``."""
        ...

    async def fetch_value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or ``None`` when there is no row."""
        ...

    async def fetch_in(self, sql: str, values: Sequence[int] | Sequence[str], *args: Any) -> list[Row]:
        """All rows of a query that has ``IN $1`` where ``values`` goes; ``args`` follow as ``$2``...

        SQLite receives the values as one JSON array read by ``json_each``, PostgreSQL as an
        array, so a query has one text (and one prepared plan) whatever the number of values.
        """
        ...


class Transaction(Reader, Protocol):
    """A reader that may also write; everything it wrote is stored together or not at all."""

    async def execute(self, sql: str, *args: Any) -> int:
        """Run one statement; the number of rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for every row of arguments."""
        ...


class Database(Protocol):
    """An open database.  Made by ``storage.open_database(url)``, closed by ``close()``."""

    engine: Literal["sqlite", "postgres"]

    #: For bounded, indexed reads (a point, or at most some fifty rows).
    read: Reader
    #: For reads that may be long: never holds up the event loop.
    scan: Reader

    def write(self, work: Callable[[Transaction], Awaitable[T]]) -> asyncio.Future[T]:
        """Run ``work`` in a transaction; the future has its result once that is on disk.

        Work is queued by the call itself, before anything is awaited, and commits in the
        order of the calls (several at once: group commit).  An exception of ``work``
        undoes what that work did, nothing else, and is raised by the future.  ``work`` may be
        run again when the transaction it shared failed, so it must have no effects
        beyond the database.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued, then close every connection."""
        ...
