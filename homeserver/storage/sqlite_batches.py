"""What the writer thread of SQLite does with a batch: works in one transaction, and how each ended.

A batch is run straight through, works that are rows in the same statements.  Only where a work
fails is everything undone and run again, each work under a savepoint, so that a failing one
undoes itself and no other.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from homeserver.storage.dialect import sqlite_text
from homeserver.storage.errors import NotStored, SuspendedInTransaction
from homeserver.storage.rows import Rows, Work, steps
from homeserver.storage.sqlite_connections import SqliteTransaction

T = TypeVar("T")

log = logging.getLogger(__name__)


class Queued(NamedTuple):
    """A work waiting for the writer thread, and the future of who waits for it."""

    work: Work
    future: asyncio.Future[Any]


class Outcome(NamedTuple):
    """How a work ended: ``error`` is ``None`` when it was stored."""

    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


class NothingChanged(Exception):
    """A row that had to change something did not."""


class _WorkFailed(Exception):
    """A work of a batch raised; the transaction is undone and the database as good as before.

    ``error`` is what the work at ``index`` raised; ``None`` where it is one of several from there on.
    """

    def __init__(self, index: int, error: BaseException | None) -> None:
        self.index = index
        self.error = error


def write_batch(connection: sqlite3.Connection, batch: Sequence[Queued]) -> list[Outcome]:
    """Run works in order in one transaction and commit it; raises nothing.

    A work that fails is undone alone.  When the transaction itself fails, each
    work that had not failed by itself gets ``NotStored``.
    """
    try:
        results = _run_straight(connection, [queued.work for queued in batch])
    except _WorkFailed as failure:
        return _run_carefully(connection, batch, failure)
    except BaseException as error:
        return _lost(connection, batch, [], error)
    return [Outcome(queued.future, result, None) for queued, result in zip(batch, results, strict=True)]


def _run_straight(connection: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    """The results of works, stored; raises ``_WorkFailed``, or what made the transaction fail."""
    connection.execute("BEGIN IMMEDIATE")
    tx = SqliteTransaction(connection)
    results: list[Any] = []
    alone = False
    try:
        for alike, rows in steps(works):
            if rows is None:
                alone = True
                results.append(run_to_end(alike[0](tx)))
                alone = False
            else:
                for statement in rows:
                    _run_rows(connection, statement)
                results += [None] * len(alike)
    except BaseException as error:
        if not connection.in_transaction:
            # A full disk, for one, makes SQLite roll back everything.
            raise
        connection.execute("ROLLBACK")
        raise _WorkFailed(len(results), error if alone else None) from error
    connection.execute("COMMIT")
    return results


def _run_rows(connection: sqlite3.Connection, statement: Rows) -> None:
    cursor = connection.executemany(sqlite_text(statement.sql), statement.rows)
    if statement.each_changes and cursor.rowcount != len(statement.rows):
        raise NothingChanged(statement.sql)


def _run_carefully(
    connection: sqlite3.Connection, batch: Sequence[Queued], failure: _WorkFailed
) -> list[Outcome]:
    """The same under savepoints, for a batch with a work in it that fails; one that is known is left out."""
    outcomes: list[Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for index, queued in enumerate(batch):
            if failure.error is not None and index == failure.index:
                outcomes.append(Outcome(queued.future, None, failure.error))
            else:
                outcomes.append(_run_under_savepoint(connection, queued))
        connection.execute("COMMIT")
    except BaseException as error:
        return _lost(connection, batch, outcomes, error)
    return outcomes


def _run_under_savepoint(connection: sqlite3.Connection, queued: Queued) -> Outcome:
    """Run one work; raises only when the whole transaction is lost."""
    connection.execute("SAVEPOINT work")
    try:
        result = run_to_end(queued.work(SqliteTransaction(connection)))
    except BaseException as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return Outcome(queued.future, None, error)
    connection.execute("RELEASE work")
    return Outcome(queued.future, result, None)


def _lost(
    connection: sqlite3.Connection,
    batch: Sequence[Queued],
    ended: Sequence[Outcome],
    error: BaseException,
) -> list[Outcome]:
    """How works ended whose transaction could not be stored."""
    log.warning("A transaction of %d writes failed: %s", len(batch), error)
    if connection.in_transaction:
        # A disk that fails may fail here too; the next BEGIN then says so.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
    failed = {outcome.future: outcome.error for outcome in ended}
    return [Outcome(queued.future, None, failed.get(queued.future) or _not_stored(error)) for queued in batch]


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
