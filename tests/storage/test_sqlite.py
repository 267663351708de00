"""What is SQLite's own: works that may not suspend, and failures of a whole transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homeserver.storage.database import Database, Transaction
from homeserver.storage.errors import NotStored, SuspendedInTransaction
from homeserver.storage.sqlite import SqliteDatabase
from homeserver.storage.sqlite_batches import Queued, write_batch

Statement = Callable[[Transaction], Any]


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / "plain.db", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
    )
    return connection


async def test_a_work_that_awaits_something_foreign_is_refused_and_undone(sqlite_database: Database) -> None:
    gate = asyncio.get_running_loop().create_future()

    async def wait_inside(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE never (x INTEGER)")
        await gate

    with pytest.raises(SuspendedInTransaction, match="wait_inside"):
        await sqlite_database.write(wait_inside)
    assert await sqlite_database.read.fetch("SELECT 1 FROM sqlite_master WHERE name = $1", "never") == []


async def test_a_failing_commit_fails_the_whole_batch(connection: sqlite3.Connection) -> None:
    loop = asyncio.get_running_loop()
    statements: list[Statement] = [
        lambda tx: tx.execute("INSERT INTO t VALUES (1, NULL)"),
        lambda tx: tx.execute("INSERT INTO nowhere VALUES (1)"),
        lambda tx: tx.execute("INSERT INTO t VALUES (2, 99)"),
    ]

    outcomes = write_batch(connection, [Queued(work, loop.create_future()) for work in statements])

    assert [type(outcome.error) for outcome in outcomes] == [NotStored, sqlite3.OperationalError, NotStored]
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    again = write_batch(connection, [Queued(statements[0], loop.create_future())])
    assert again[0].error is None


async def test_works_get_not_stored_when_the_transaction_cannot_begin(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "plain.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    connection.execute("PRAGMA busy_timeout = 1")
    work: Statement = lambda tx: tx.execute("INSERT INTO t VALUES (1, NULL)")  # noqa: E731

    [outcome] = write_batch(connection, [Queued(work, asyncio.get_running_loop().create_future())])

    assert isinstance(outcome.error, NotStored)
    assert "locked" in str(outcome.error)


async def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    database = await SqliteDatabase.open(tmp_path / "new.db")

    async def settings(tx: Transaction) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [await tx.fetch_value(f"PRAGMA {name}") for name in names]

    assert await database.write(settings) == ["wal", 2, 1]
    await database.close()


async def test_nobody_else_on_the_machine_may_read_the_file(tmp_path: Path) -> None:
    await (await SqliteDatabase.open(tmp_path / "new.db")).close()
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600


async def test_a_cancelled_scan_frees_its_connection(sqlite_database: Database) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    scans = [asyncio.ensure_future(sqlite_database.scan.fetch(endless)) for _ in range(3)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*scans), 0.3)

    assert await asyncio.wait_for(sqlite_database.scan.fetch_value("SELECT 1"), 10) == 1


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT event_nid FROM current_state WHERE room_nid = 1 AND membership IS NULL",
            "current_state_others",
        ),
        (
            "SELECT event_nid FROM current_state WHERE room_nid = 1 AND membership = 1",
            "current_state_members",
        ),
        ("SELECT event_nid FROM current_state WHERE room_nid = 1 AND key_nid = 2", "PRIMARY KEY"),
        (
            "SELECT room_nid FROM current_state WHERE key_nid = 2 AND membership = 1",
            "current_state_member_rooms",
        ),
    ],
)
async def test_no_query_looks_through_all_members_of_a_room(
    sqlite_database: Database, query: str, index: str
) -> None:
    plan = await sqlite_database.read.fetch(f"EXPLAIN QUERY PLAN {query}")

    assert [index in row[3] for row in plan] == [True]
