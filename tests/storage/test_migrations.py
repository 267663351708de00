"""Schemas grow forwards, on both engines, and nothing that does not fit is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeserver.storage import open_database
from homeserver.storage.dialect import postgres_schema, split_statements
from homeserver.storage.errors import SchemaRefused
from homeserver.storage.migrations import SCHEMA, read_migrations

FIRST = """
-- People; and
CREATE TABLE people (
    person_id INTEGER PRIMARY KEY, -- a number; no more
    name TEXT NOT NULL DEFAULT 'nobody; really'
);
/* a body; of comment */
CREATE INDEX people_by_name ON people (name);
"""
SECOND = """
ALTER TABLE people ADD COLUMN photo BLOB;
CREATE TABLE friends (a INTEGER NOT NULL, b INTEGER NOT NULL, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO friends (a, b) SELECT person_id, person_id FROM people;
"""


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_people.sql").write_text(FIRST)
    return folder


async def test_a_row_survives_from_the_first_migration_on(empty_database_url: str, schema: Path) -> None:
    database = await open_database(empty_database_url, schema)
    await database.write(lambda tx: tx.execute("INSERT INTO people (person_id) VALUES ($1)", 7))
    await database.close()

    (schema / "0002_friends.sql").write_text(SECOND)
    database = await open_database(empty_database_url, schema)
    people = await database.read.fetch("SELECT person_id, name, photo FROM people")
    friends = await database.read.fetch("SELECT a, b FROM friends")
    applied = await database.read.fetch("SELECT number, name FROM schema_migrations ORDER BY number")
    await database.close()

    assert people == [(7, "nobody; really", None)]
    assert friends == [(7, 7)]
    assert applied == [(1, "people"), (2, "friends")]


async def test_opening_again_changes_nothing(empty_database_url: str, schema: Path) -> None:
    for _ in range(2):
        database = await open_database(empty_database_url, schema)
        assert await database.read.fetch_value("SELECT count(*) FROM schema_migrations") == 1
        await database.close()


async def test_a_newer_database_is_refused(empty_database_url: str, schema: Path) -> None:
    (schema / "0002_friends.sql").write_text(SECOND)
    await (await open_database(empty_database_url, schema)).close()

    (schema / "0002_friends.sql").unlink()
    with pytest.raises(SchemaRefused, match=r"schema version 2.*newer version of the program"):
        await open_database(empty_database_url, schema)


async def test_a_changed_migration_is_refused(empty_database_url: str, schema: Path) -> None:
    await (await open_database(empty_database_url, schema)).close()

    (schema / "0001_people.sql").write_text(FIRST.replace("nobody;", "somebody;"))
    with pytest.raises(SchemaRefused, match=r"migration 1 \(people\)"):
        await open_database(empty_database_url, schema)


async def test_a_better_comment_is_no_change(empty_database_url: str, schema: Path) -> None:
    await (await open_database(empty_database_url, schema)).close()

    (schema / "0001_people.sql").write_text(FIRST.replace("a number; no more", "its number") + "\n\n")
    db = await open_database(empty_database_url, schema)
    assert await db.read.fetch("SELECT name FROM people") == []
    await db.close()


async def test_a_migration_that_comes_too_late_is_refused(empty_database_url: str, schema: Path) -> None:
    (schema / "0003_friends.sql").write_text(SECOND)
    await (await open_database(empty_database_url, schema)).close()

    (schema / "0002_late.sql").write_text("CREATE TABLE late (x INTEGER);")
    with pytest.raises(SchemaRefused, match=r"migration 3 but not 2"):
        await open_database(empty_database_url, schema)


async def test_a_failing_migration_leaves_the_database_as_it_was(
    empty_database_url: str, schema: Path
) -> None:
    (schema / "0002_wrong.sql").write_text("CREATE TABLE half (x INTEGER); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(Exception, match="nowhere"):
        await open_database(empty_database_url, schema)

    (schema / "0002_wrong.sql").write_text("CREATE TABLE half (x INTEGER, y INTEGER);")
    database = await open_database(empty_database_url, schema)
    assert await database.read.fetch("SELECT x, y FROM half") == []
    await database.close()


@pytest.mark.parametrize("name", ["0001_workers.sql", "two.sql"])
def test_wrongly_named_files_are_refused(schema: Path, name: str) -> None:
    (schema / name).write_text("")
    with pytest.raises(ValueError, match=name):
        read_migrations(schema)


async def test_the_programs_own_schema_has_the_same_tables_on_each_engine(database_url: str) -> None:
    database = await open_database(database_url)
    applied = await database.read.fetch("SELECT number FROM schema_migrations ORDER BY number")
    await database.close()
    assert [row[0] for row in applied] == [migration.number for migration in read_migrations(SCHEMA)]


def test_statements_are_split_at_semicolons_that_end_them() -> None:
    script = "SELECT 'it''s; -- fine' ;; -- no; more\n SELECT \"a;b\" /* ; */\n  FROM t - 1"
    assert split_statements(script) == ["SELECT 'it''s; -- fine'", 'SELECT "a;b" FROM t - 1']


def test_types_are_rewritten_for_postgres_outside_literals() -> None:
    columns = "id INTEGER PRIMARY KEY, text TEXT DEFAULT 'TEXT', \"BLOB\" BLOB, r REAL"
    assert postgres_schema(f"CREATE TABLE t ({columns}) WITHOUT ROWID") == (
        "CREATE TABLE t (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,"
        ' text TEXT COLLATE "C" DEFAULT \'TEXT\', "BLOB" BYTEA, r DOUBLE PRECISION)'
    )
    assert postgres_schema("UPDATE t SET r = CAST(text AS TEXT)") == "UPDATE t SET r = CAST(text AS TEXT)"


async def test_one_engine_may_have_statements_of_its_own(empty_database_url: str, schema: Path) -> None:
    (schema / "0002_more.sql").write_text("CREATE TABLE more (x INTEGER);")
    (schema / "0002_more.sqlite.sql").write_text(
        """CREATE TABLE own_sqlite (x INTEGER);
        CREATE TRIGGER twice AFTER INSERT ON more BEGIN
            INSERT INTO own_sqlite VALUES (new.x);
            INSERT INTO own_sqlite VALUES (new.x);
        END;"""
    )
    (schema / "0002_more.postgres.sql").write_text("CREATE TABLE own_postgres (x bigint[]);")
    database = await open_database(empty_database_url, schema)
    await database.write(lambda tx: tx.execute("INSERT INTO more (x) VALUES (7)"))
    own = await database.read.fetch(f"SELECT x FROM own_{database.engine}")
    await database.close()
    assert len(own) == (2 if database.engine == "sqlite" else 0)
    again = await open_database(empty_database_url, schema)
    await again.close()


def test_statements_of_one_engine_belong_to_a_migration(schema: Path) -> None:
    (schema / "0009_lonely.sqlite.sql").write_text("")
    with pytest.raises(ValueError, match="lonely"):
        read_migrations(schema)
