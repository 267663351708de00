"""The write-ahead log: copied beside the writer, and never longer than it has to be."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from homeserver.storage.sqlite import SqliteDatabase
from homeserver.storage.sqlite_checkpoints import Checkpoints
from homeserver.storage.sqlite_connections import connect

LOG_BYTES = 1 << 20
PAGE = b"x" * 4000


@pytest.fixture
def writer(tmp_path: Path) -> sqlite3.Connection:
    pragmas = (
        "journal_mode = WAL",
        "synchronous = OFF",
        "wal_autocheckpoint = 0",
        f"journal_size_limit = {LOG_BYTES}",
    )
    connection = connect(tmp_path / "a.db", "rwc", [f"PRAGMA {pragma}" for pragma in pragmas])
    connection.execute("CREATE TABLE t (data BLOB)")
    return connection


def log_size(folder: Path) -> int:
    return (folder / "a.db-wal").stat().st_size


def write(writer: sqlite3.Connection, checkpoints: Checkpoints, pages: int) -> None:
    """Ten pages a transaction, as fast as it goes."""
    for _ in range(pages // 10):
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany("INSERT INTO t VALUES (?)", [(PAGE,)] * 10)
        writer.execute("COMMIT")
        checkpoints.after_commit(writer)


def test_the_log_stays_short_under_steady_writing(tmp_path: Path, writer: sqlite3.Connection) -> None:
    checkpoints = Checkpoints(tmp_path / "a.db", LOG_BYTES)
    write(writer, checkpoints, 3_000)
    longest = log_size(tmp_path)
    write(writer, checkpoints, 3_000)
    checkpoints.close()

    written = 6_000 * len(PAGE)
    assert max(longest, log_size(tmp_path)) < written / 3


def test_a_reader_of_an_old_state_holds_the_log_back_no_longer_than_it_reads(
    tmp_path: Path, writer: sqlite3.Connection
) -> None:
    checkpoints = Checkpoints(tmp_path / "a.db", LOG_BYTES)
    write(writer, checkpoints, 10)
    reader = connect(tmp_path / "a.db", "ro", ())
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (10,)
    write(writer, checkpoints, 1_000)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (10,)
    reader.execute("COMMIT")
    held = log_size(tmp_path)

    write(writer, checkpoints, 6_000)
    checkpoints.close()

    assert held > 3 * LOG_BYTES
    assert log_size(tmp_path) < 6_000 * len(PAGE) / 2
    assert writer.execute("SELECT count(*) FROM t").fetchone() == (7_010,)


async def test_closing_ends_the_thread_and_leaves_no_log(tmp_path: Path) -> None:
    database = await SqliteDatabase.open(tmp_path / "a.db")
    await database.write(lambda tx: tx.execute("CREATE TABLE t (data BLOB)"))
    await database.close()

    assert not (tmp_path / "a.db-wal").exists()
    assert "sqlite-checkpoints" not in {thread.name for thread in threading.enumerate()}
