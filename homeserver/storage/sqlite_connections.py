"""Connections to an SQLite file, and what a query is run with on one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from homeserver.storage.database import Row
from homeserver.storage.dialect import sqlite_in_text, sqlite_text

_CACHED_STATEMENTS = 1024
BUSY_TIMEOUT_S = 5.0

#: Cached pages are in KiB.  Mapped, the file would be this process's memory once for every connection
#: that reads it, beside the system's own cache; unmapped, what is read often costs the same and the
#: rest some five microseconds more.
PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -4096",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
)
#: For connections of which there are several, and which read what is not read again.
SCAN_PRAGMAS = (*PRAGMAS, "PRAGMA cache_size = -2048")


class SqliteReader:
    """Queries on one connection, run right where they are called; never suspends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return self._connection.execute(sqlite_text(sql), args).fetchall()

    async def fetch_row(self, sql: str, *args: Any) -> Row | None:
        cursor = self._connection.execute(sqlite_text(sql), args)
        row: Row | None = cursor.fetchone()
        # An open cursor would pin the snapshot that later statements see.
        cursor.close()
        return row

    async def fetch_value(self, sql: str, *args: Any) -> Any:
        row = await self.fetch_row(sql, *args)
        return None if row is None else row[0]

    async def fetch_in(self, sql: str, values: Sequence[int] | Sequence[str], *args: Any) -> list[Row]:
        return self._connection.execute(sqlite_in_text(sql), (json_array(values), *args)).fetchall()


class SqliteTransaction(SqliteReader):
    """What a work is given: the writer's connection, inside a transaction."""

    async def execute(self, sql: str, *args: Any) -> int:
        cursor = self._connection.execute(sqlite_text(sql), args)
        changed = cursor.rowcount
        cursor.close()
        return max(changed, 0)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sqlite_text(sql), rows).close()


def connect(path: Path, mode: str, pragmas: Sequence[str]) -> sqlite3.Connection:
    """Open a file."""
    connection = sqlite3.connect(
        uri_of(path, mode),
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        cached_statements=_CACHED_STATEMENTS,
        # Opened in the loop's thread, the writer's is then used in its own only.
        check_same_thread=False,
    )
    for pragma in pragmas:
        connection.execute(pragma)
    return connection


def uri_of(path: Path, mode: str) -> str:
    """A file as SQLite's URIs name it; ``mode`` is "ro", "rw" or "rwc"."""
    return f"file:{quote(str(path))}?mode={mode}"


def json_array(values: Sequence[int] | Sequence[str]) -> str:
    """What ``sqlite_in_text`` reads a list from."""
    return orjson.dumps(list(values)).decode()
