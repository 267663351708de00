"""Where everything is kept.  SQL text stands in this package and nowhere else.

``open_database(url)`` gives a ``Database`` (see ``database.py``); the other modules
are nouns with functions over a reader or a transaction.
"""

from __future__ import annotations

from pathlib import Path

from homeserver.storage.database import Database
from homeserver.storage.migrations import SCHEMA, migrate

__all__ = ["open_database"]


async def open_database(url: str, schema: Path = SCHEMA) -> Database:
    """Open a database, created if it is an SQLite file that is not there yet, with its schema up to date.

    ``url`` is ``postgresql://...``, ``sqlite:///absolute/path`` (taken literally, no
    percent escapes) or a plain path to an SQLite file.  Raises ``DatabaseInUse``,
    ``SchemaRefused``, and ``ValueError`` for any other kind of URL.
    """
    database = await _connect(url)
    try:
        await migrate(database, schema)
    except BaseException:
        await database.close()
        raise
    return database


async def _connect(url: str) -> Database:
    scheme, separator, rest = url.partition("://")
    # Imported when chosen, so that a server on one engine never loads the other's driver.
    if scheme in ("postgresql", "postgres") and separator:
        from homeserver.storage.postgres import PostgresDatabase  # noqa: PLC0415

        return await PostgresDatabase.open(url)
    if separator and scheme != "sqlite":
        raise ValueError(f"a database is sqlite:///path or postgresql://..., not {scheme}://")
    from homeserver.storage.sqlite import SqliteDatabase  # noqa: PLC0415

    return await SqliteDatabase.open(Path(rest if separator else url))
