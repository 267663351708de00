"""A database that counts what is read from it."""

from __future__ import annotations

from typing import Any

from homeserver.storage.database import Database


class Counting:
    """A database that counts what is read."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.engine = db.engine
        self.write = db.write
        self.reads = 0
        self.rows = 0
        self.read, self.scan = CountingReader(self, db.read), CountingReader(self, db.scan)

    async def close(self) -> None:
        await self._db.close()


class CountingReader:
    """A reader of such a database."""

    def __init__(self, counts: Counting, reader: Any) -> None:
        self._counts, self._reader = counts, reader

    async def fetch(self, *args: Any) -> Any:
        return self._counted(await self._reader.fetch(*args))

    async def fetch_in(self, *args: Any) -> Any:
        return self._counted(await self._reader.fetch_in(*args))

    async def fetch_row(self, *args: Any) -> Any:
        self._counts.reads += 1
        return await self._reader.fetch_row(*args)

    async def fetch_value(self, *args: Any) -> Any:
        self._counts.reads += 1
        return await self._reader.fetch_value(*args)

    def _counted(self, rows: Any) -> Any:
        self._counts.reads += 1
        self._counts.rows += len(rows)
        return rows
