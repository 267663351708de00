"""SQLite as a ``Database``: a writer thread with group commit, and readers beside it.

Writes asked for in one turn of the event loop go to the writer thread together
and, with whatever queued up while it was busy, share one transaction and one
disk flush.  Each work in it runs under a savepoint, so that a failing one undoes
only itself.  The thread drives a work to its end without an event loop, so a work
can await its transaction and nothing else.

A lock (``file_lock.py``) keeps a second process out: two of them would not know of
each other's stream positions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import aiosqlite
import orjson

from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.dialect import sqlite_in_text, sqlite_text
from homeserver.storage.errors import DatabaseClosed, NotStored, SuspendedInTransaction
from homeserver.storage.file_lock import real_path, take_lock
from homeserver.storage.sqlite_statistics import tell_planner

T = TypeVar("T")

Work = Callable[[Transaction], Awaitable[Any]]

log = logging.getLogger(__name__)

_SCAN_CONNECTIONS = 3
_CACHED_STATEMENTS = 1024
_BUSY_TIMEOUT_S = 5.0

_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -32768",  # KiB
    "PRAGMA mmap_size = 268435456",
    "PRAGMA temp_store = MEMORY",
)
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",  # pages, 16 MiB
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA secure_delete = ON",  # what was redacted or purged does not linger in the file
)


class Queued(NamedTuple):
    """A work waiting for the writer thread, and the future of who waits for it."""

    work: Work
    future: asyncio.Future[Any]


class Outcome(NamedTuple):
    """How a work ended: ``error`` is ``None`` when it was stored."""

    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


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
        return self._connection.execute(sqlite_in_text(sql), (_json_array(values), *args)).fetchall()


class SqliteTransaction(SqliteReader):
    """What a work is given: the writer's connection, inside a transaction."""

    async def execute(self, sql: str, *args: Any) -> int:
        cursor = self._connection.execute(sqlite_text(sql), args)
        changed = cursor.rowcount
        cursor.close()
        return max(changed, 0)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sqlite_text(sql), rows).close()


class SqliteScanner:
    """Queries on threads of their own (aiosqlite), at most ``size`` at once, for reads that take long."""

    def __init__(self, path: Path, size: int = _SCAN_CONNECTIONS) -> None:
        self._path = path
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._closed = False
        self._idle: list[aiosqlite.Connection] = []

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return await self._run(sqlite_text(sql), args)

    async def fetch_row(self, sql: str, *args: Any) -> Row | None:
        rows = await self._run(sqlite_text(sql), args)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, *args: Any) -> Any:
        row = await self.fetch_row(sql, *args)
        return None if row is None else row[0]

    async def fetch_in(self, sql: str, values: Sequence[int] | Sequence[str], *args: Any) -> list[Row]:
        return await self._run(sqlite_in_text(sql), (_json_array(values), *args))

    async def close(self) -> None:
        """Wait for the queries that run, then close every connection."""
        self._closed = True
        for _ in range(self._size):
            await self._slots.acquire()
        while self._idle:
            await self._idle.pop().close()

    async def _run(self, sql: str, args: tuple[Any, ...]) -> list[Row]:
        if self._closed:
            raise DatabaseClosed("the database is closed")
        async with self._slots:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                return list(await connection.execute_fetchall(sql, args))
            except asyncio.CancelledError:
                # Else the next query on this connection waits for one nobody wants.
                await connection.interrupt()
                raise
            finally:
                self._idle.append(connection)

    async def _connect(self) -> aiosqlite.Connection:
        opening = asyncio.ensure_future(self._open())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Nobody else would end its thread, without which the process does not end.
            self._idle.append(await opening)
            raise

    async def _open(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(
            _uri(self._path, "ro"), uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S
        )
        for pragma in _PRAGMAS:
            await connection.execute_fetchall(pragma)
        return connection


class SqliteDatabase:
    """An SQLite file as a ``Database``.  Made by ``SqliteDatabase.open(path)`` inside a running loop."""

    engine: Literal["sqlite", "postgres"] = "sqlite"
    read: Reader
    scan: Reader

    def __init__(self, path: Path, lock: int) -> None:
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._writer = _connect(path, "rwc", (*_PRAGMAS, *_WRITER_PRAGMAS))
        tell_planner(self._writer)
        self._reader = _connect(path, "ro", _PRAGMAS)
        self._scanner = SqliteScanner(path)
        self.read = SqliteReader(self._reader)
        self.scan = self._scanner
        self._queued: list[Queued] = []
        self._batches: queue.SimpleQueue[list[Queued] | None] = queue.SimpleQueue()
        self._closed = False
        self._finished: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a program that ends without ``close()`` loses only what was never acknowledged.
        threading.Thread(target=self._write_batches, name="sqlite-writer", daemon=True).start()

    @classmethod
    async def open(cls, path: Path) -> SqliteDatabase:
        """Open or create the file ``path``; its folder must exist.

        Raises ``DatabaseInUse`` when another process (or another part of this one)
        has it open.
        """
        lock = take_lock(path := real_path(path))
        try:
            # Ours alone to read: it holds everyone's tokens and messages.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return cls(path, lock)
        except BaseException:
            os.close(lock)
            raise

    def write(self, work: Callable[[Transaction], Awaitable[T]]) -> asyncio.Future[T]:
        """See ``Database.write``."""
        if self._closed:
            raise DatabaseClosed("the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._queued:
            self._loop.call_soon(self._hand_over)
        self._queued.append(Queued(work, future))
        return future

    async def close(self) -> None:
        """See ``Database.close``; closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._batches.put(None)
        await self._finished
        await self._scanner.close()
        self._reader.close()
        # Last, for the last connection folds the write-ahead log into the file.
        self._writer.close()
        os.close(self._lock)

    def _hand_over(self) -> None:
        if self._queued:
            self._batches.put(self._queued)
            self._queued = []

    def _write_batches(self) -> None:
        """The writer thread."""
        while batch := self._next_batch():
            self._tell_loop(_deliver, write_batch(self._writer, batch))
        self._tell_loop(self._finished.set_result, None)

    def _next_batch(self) -> list[Queued]:
        """All that is queued, waiting for the first; empty when there will be no more."""
        batch: list[Queued] = []
        while (more := self._batches.get()) is not None:
            batch += more
            if self._batches.empty():
                return batch
        # The end is met again after this batch.
        self._batches.put(None)
        return batch

    def _tell_loop(self, callback: Callable[[Any], object], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            # The loop was closed without ``close()``: nobody is left to be told.
            log.warning("The event loop ended before the database was closed")


def write_batch(connection: sqlite3.Connection, batch: Sequence[Queued]) -> list[Outcome]:
    """Run works in order in one transaction and commit it; raises nothing.

    A work that fails is undone alone.  When the transaction itself fails, each
    work that had not failed by itself gets ``NotStored``.
    """
    outcomes: list[Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for queued in batch:
            outcomes.append(_run_under_savepoint(connection, queued))
        connection.execute("COMMIT")
    except BaseException as error:
        log.warning("A transaction of %d writes failed: %s", len(batch), error)
        if connection.in_transaction:
            # A disk that fails may fail here too; the next BEGIN then says so.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        failed = {outcome.future: outcome.error for outcome in outcomes}
        return [
            Outcome(queued.future, None, failed.get(queued.future) or _not_stored(error)) for queued in batch
        ]
    return outcomes


def _run_under_savepoint(connection: sqlite3.Connection, queued: Queued) -> Outcome:
    """Run one work; raises only when the whole transaction is lost."""
    connection.execute("SAVEPOINT work")
    try:
        result = run_to_end(queued.work(SqliteTransaction(connection)))
    except BaseException as error:
        if not connection.in_transaction:
            # A full disk, for one, makes SQLite roll back everything.
            raise
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return Outcome(queued.future, None, error)
    connection.execute("RELEASE work")
    return Outcome(queued.future, result, None)


def run_to_end(awaitable: Awaitable[T]) -> T:
    """The result of something awaitable that never suspends.

    Raises ``SuspendedInTransaction`` if it does, having closed it.
    """
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    steps.close()
    raise SuspendedInTransaction(
        f"{getattr(awaitable, '__qualname__', awaitable)} awaited something other than its transaction"
    )


def _not_stored(error: BaseException) -> NotStored:
    not_stored = NotStored(f"the transaction was not stored: {error}")
    not_stored.__cause__ = error
    return not_stored


def _deliver(outcomes: Sequence[Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            # Its caller was cancelled; the work was not.
            if error is not None:
                log.warning("A write nobody waits for any more failed", exc_info=error)
        elif error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _connect(path: Path, mode: str, pragmas: Sequence[str]) -> sqlite3.Connection:
    connection = sqlite3.connect(
        _uri(path, mode),
        uri=True,
        isolation_level=None,
        timeout=_BUSY_TIMEOUT_S,
        cached_statements=_CACHED_STATEMENTS,
        # Opened in the loop's thread, the writer's is then used in its own only.
        check_same_thread=False,
    )
    for pragma in pragmas:
        connection.execute(pragma)
    return connection


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path))}?mode={mode}"


def _json_array(values: Sequence[int] | Sequence[str]) -> str:
    return orjson.dumps(list(values)).decode()
