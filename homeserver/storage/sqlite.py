"""SQLite as a ``Database``: a writer thread with group commit, and readers beside it.

What is asked for while the writer thread is busy waits, and is handed over all at once as soon
as the event loop has heard of the end of that: one transaction, one disk flush
(``sqlite_batches.py``).  The loop would not come to answer anybody sooner, and the busier it is,
the more share a flush.  The thread drives a work to its end without an event loop, so a work
can await its transaction and nothing else.

A lock (``file_lock.py``) keeps a second process out: two of them would not know of
each other's stream positions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.dialect import sqlite_in_text, sqlite_text
from homeserver.storage.errors import DatabaseClosed
from homeserver.storage.file_lock import real_path, take_lock
from homeserver.storage.sqlite_batches import Outcome, Queued, write_batch
from homeserver.storage.sqlite_checkpoints import LOG_BYTES, Checkpoints
from homeserver.storage.sqlite_connections import (
    BUSY_TIMEOUT_S,
    PRAGMAS,
    SCAN_PRAGMAS,
    SqliteReader,
    connect,
    json_array,
    uri_of,
)
from homeserver.storage.sqlite_statistics import tell_planner

T = TypeVar("T")

log = logging.getLogger(__name__)

_SCAN_CONNECTIONS = 3
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",  # what sqlite_checkpoints.py does
    f"PRAGMA journal_size_limit = {LOG_BYTES}",
    "PRAGMA secure_delete = ON",  # what was redacted or purged does not linger in the file
)


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
        return await self._run(sqlite_in_text(sql), (json_array(values), *args))

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
            uri_of(self._path, "ro"), uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
        )
        for pragma in SCAN_PRAGMAS:
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
        self._writer = connect(path, "rwc", (*PRAGMAS, *_WRITER_PRAGMAS))
        tell_planner(self._writer)
        self._checkpoints = Checkpoints(path)
        self._reader = connect(path, "ro", PRAGMAS)
        self._scanner = SqliteScanner(path)
        self.read = SqliteReader(self._reader)
        self.scan = self._scanner
        self._queued: list[Queued] = []
        self._batches: queue.SimpleQueue[list[Queued] | None] = queue.SimpleQueue()
        self._writing = False
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
        self._batches.put(self._queued)
        self._batches.put(None)
        await self._finished
        await self._scanner.close()
        self._reader.close()
        # Last, for the last connection folds the write-ahead log into the file.
        self._writer.close()
        os.close(self._lock)

    def _hand_over(self) -> None:
        if self._queued and not self._writing and not self._closed:
            self._writing = True
            self._batches.put(self._queued)
            self._queued = []

    def _written(self, outcomes: Sequence[Outcome]) -> None:
        self._writing = False
        self._hand_over()
        _deliver(outcomes)

    def _write_batches(self) -> None:
        """The writer thread."""
        while (batch := self._batches.get()) is not None:
            if batch:
                self._tell_loop(self._written, write_batch(self._writer, batch))
                self._checkpoints.after_commit(self._writer)
        self._checkpoints.close()
        self._tell_loop(self._finished.set_result, None)

    def _tell_loop(self, callback: Callable[[Any], object], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            # The loop was closed without ``close()``: nobody is left to be told.
            log.warning("The event loop ended before the database was closed")


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
