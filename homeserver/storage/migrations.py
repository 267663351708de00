"""Brings a database's schema up to the program's, one numbered migration after another.

A migration is a file ``schema/NNNN_name.sql`` in SQLite's dialect (see
``dialect.postgres_schema`` for what PostgreSQL gets instead).  What only one engine has
(full-text indexes) stands beside it in ``NNNN_name.sqlite.sql`` and ``NNNN_name.postgres.sql``,
each in that engine's own SQL, and comes after it.  All is applied in one
transaction together with the row that records it.  There is no way back: a
database that is newer than the program, or whose recorded migrations differ from
the program's, is refused untouched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from homeserver.storage.database import Database, Transaction
from homeserver.storage.dialect import postgres_schema, split_statements
from homeserver.storage.errors import SchemaRefused

#: The program's own migrations.
SCHEMA = Path(__file__).parent / "schema"

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_ENGINES = ("sqlite", "postgres")

#: Any number, as long as every process migrating one database uses the same.
_ADVISORY_LOCK = 0x1691E
_RECORD = (
    "CREATE TABLE IF NOT EXISTS schema_migrations"
    " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)"
)


class Migration(msgspec.Struct, frozen=True):
    """One migration; the ``checksum`` covers its statements, not comments or spacing.

    ``own`` are those of one engine each.
    """

    number: int
    name: str
    statements: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    @property
    def checksum(self) -> str:
        statements = (*self.statements, *(one for engine in _ENGINES for one in self.own.get(engine, ())))
        return hashlib.sha256(";\n".join(statements).encode()).hexdigest()

    def for_engine(self, engine: str) -> list[str]:
        """What is to be run on an engine."""
        common = map(postgres_schema, self.statements) if engine == "postgres" else self.statements
        return [*common, *self.own.get(engine, ())]


def read_migrations(folder: Path = SCHEMA) -> list[Migration]:
    """The migrations in a folder, by number.

    Raises ``ValueError`` when a file is not called ``NNNN_name.sql``, a number
    is used twice, or one engine's file has none beside it.
    """
    found: dict[int, Migration] = {}
    beside = {file for engine in _ENGINES for file in folder.glob(f"*.{engine}.sql")}
    for file in sorted({*folder.glob("*.sql")} - beside):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{file} is not called NNNN_name.sql")
        number = int(match[1])
        if number in found:
            raise ValueError(f"{file} has the same number as migration {found[number].name}")
        own = {
            engine: _statements_in(other)
            for engine in _ENGINES
            if (other := file.with_suffix(f".{engine}.sql")) in beside
        }
        beside -= {file.with_suffix(f".{engine}.sql") for engine in own}
        found[number] = Migration(number, match[2], _statements_in(file), own)
    if beside:
        raise ValueError(f"{min(beside)} belongs to no migration")
    return list(found.values())


def _statements_in(file: Path) -> tuple[str, ...]:
    return tuple(split_statements(file.read_text(encoding="utf-8")))


def pending(migrations: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """The migrations a database still needs; ``applied`` maps numbers to checksums.

    Raises ``SchemaRefused`` when what was applied is not the beginning of what the
    program has.
    """
    known = {migration.number: migration for migration in migrations}
    newest = max(applied, default=0)
    if newest > max(known, default=0):
        raise SchemaRefused(
            f"the database has schema version {newest}, but this program knows only versions"
            f" up to {max(known, default=0)}: it was used with a newer version of the program"
        )
    for number, checksum in sorted(applied.items()):
        if number not in known:
            raise SchemaRefused(f"the database has migration {number}, which this program does not have")
        if known[number].checksum != checksum:
            raise SchemaRefused(
                f"migration {number} ({known[number].name}) was applied to the database in another form"
                " than this program has"
            )
    missing = [migration for migration in migrations if migration.number not in applied]
    if missing and missing[0].number < newest:
        raise SchemaRefused(
            f"the database has migration {newest} but not {missing[0].number}, which precedes it"
        )
    return missing


async def migrate(database: Database, folder: Path = SCHEMA) -> None:
    """Apply what the database still needs.  Raises ``SchemaRefused`` as ``pending`` does."""
    migrations = read_migrations(folder)
    applied = await database.write(lambda tx: _applied(tx, database.engine))
    for migration in pending(migrations, applied):
        await _apply(database, migration)


async def _apply(database: Database, migration: Migration) -> None:
    async def apply(tx: Transaction) -> None:
        # Another process may have applied it since the list was read.
        if migration.number in await _applied(tx, database.engine):
            return
        for statement in migration.for_engine(database.engine):
            await tx.execute(statement)
        await tx.execute(
            "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.checksum,
        )

    await database.write(apply)


async def _applied(tx: Transaction, engine: str) -> dict[int, str]:
    """Number and checksum of each migration the database has; holds off other processes until the commit."""
    if engine == "postgres":
        await tx.fetch_value("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
        await tx.execute(postgres_schema(_RECORD))
    else:
        await tx.execute(_RECORD)
    rows = await tx.fetch("SELECT number, checksum FROM schema_migrations")
    return {row[0]: row[1] for row in rows}
