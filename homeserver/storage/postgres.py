"""PostgreSQL as a ``Database``: one connection that writes with group commit, and a pool that reads.

Works are run one after the other by a single task.  All that queued up while it was
busy share one transaction, without savepoints: when one of them fails, everything
is rolled back and each is run again in a transaction of its own, so that only the
failing one raises.  An SQL error ends its transaction, so a work must not catch one
and go on.

Works that are rows take one statement, whatever number of them and of tables: that is one round
trip, and a transaction by itself where there is nothing else in it.

A lost connection is replaced.  What was not yet being committed is run again; what
was being committed raises ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import asyncpg  # type: ignore[import-untyped]

from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.dialect import postgres_in_text, postgres_row_text, postgres_rows_text
from homeserver.storage.errors import DatabaseClosed, ErrorPassedOver, NotStored, OutcomeUnknown
from homeserver.storage.rows import Rows, RowsWork, Step, Work, steps

T = TypeVar("T")

log = logging.getLogger(__name__)

_POOL_CONNECTIONS = 10
#: Fewer than the pool has, so that long reads never take the last connection from short ones.
_SCANS_AT_ONCE = 3
_CONNECT_TIMEOUT_S = 10.0
#: How often a batch is begun anew when the connection is lost before its commit.
_ATTEMPTS = 3

_SESSION = {"application_name": "inglenook", "jit": "off"}
_READ_SESSION = {**_SESSION, "default_transaction_read_only": "on"}
_STATEMENTS = {"statement_cache_size": 1024, "max_cached_statement_lifetime": 0}

#: What the server says before it hangs up.
_HANGING_UP = (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.IdleSessionTimeoutError)


class Queued(NamedTuple):
    """A work waiting for its turn, and the future of who waits for it."""

    work: Work
    future: asyncio.Future[Any]


class ConnectionLost(Exception):
    """The writer's connection broke before anything was committed."""


class PostgresTransaction:
    """What a work is given: the writer's connection, inside a transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        rows: list[Row] = await self._connection.fetch(sql, *args)
        return rows

    async def fetch_row(self, sql: str, *args: Any) -> Row | None:
        row: Row | None = await self._connection.fetchrow(sql, *args)
        return row

    async def fetch_value(self, sql: str, *args: Any) -> Any:
        return await self._connection.fetchval(sql, *args)

    async def fetch_in(self, sql: str, values: Sequence[int] | Sequence[str], *args: Any) -> list[Row]:
        rows: list[Row] = await self._connection.fetch(postgres_in_text(sql), values, *args)
        return rows

    async def execute(self, sql: str, *args: Any) -> int:
        # The command tag ends in the number of rows, where the command has one.
        tag: str = await self._connection.execute(sql, *args)
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        await self._connection.executemany(sql, rows)


class PoolReader:
    """Queries on the pool's connections, at most ``at_once`` at a time."""

    def __init__(self, pool: Any, at_once: int) -> None:
        self._pool = pool
        self._slots = asyncio.Semaphore(at_once)

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        async with self._slots:
            rows: list[Row] = await self._pool.fetch(sql, *args)
        return rows

    async def fetch_row(self, sql: str, *args: Any) -> Row | None:
        async with self._slots:
            row: Row | None = await self._pool.fetchrow(sql, *args)
        return row

    async def fetch_value(self, sql: str, *args: Any) -> Any:
        async with self._slots:
            return await self._pool.fetchval(sql, *args)

    async def fetch_in(self, sql: str, values: Sequence[int] | Sequence[str], *args: Any) -> list[Row]:
        return await self.fetch(postgres_in_text(sql), values, *args)


class PostgresDatabase:
    """A PostgreSQL database as a ``Database``.  Made by ``PostgresDatabase.open(url)``."""

    engine: Literal["sqlite", "postgres"] = "postgres"
    read: Reader
    scan: Reader

    def __init__(self, url: str, writer: Any, pool: Any) -> None:
        self._url = url
        self._writer = writer
        self._pool = pool
        self.read = PoolReader(pool, _POOL_CONNECTIONS)
        self.scan = PoolReader(pool, _SCANS_AT_ONCE)
        self._loop = asyncio.get_running_loop()
        self._queued: list[Queued] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._task = self._loop.create_task(self._write_batches(), name="postgres-writer")

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        """Connect to the database ``url`` names, which must exist.  Raises asyncpg's errors."""
        writer = await _connect(url)
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=_POOL_CONNECTIONS,
                init=_prepare,
                # A read leaves nothing behind, and cleaning up would cost a round trip each time.
                reset=_leave_as_is,
                timeout=_CONNECT_TIMEOUT_S,
                server_settings=_READ_SESSION,
                **_STATEMENTS,
            )
        except BaseException:
            writer.terminate()
            raise
        return cls(url, writer, pool)

    def write(self, work: Callable[[Transaction], Awaitable[T]]) -> asyncio.Future[T]:
        """See ``Database.write``."""
        if self._closed:
            raise DatabaseClosed("the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queued.append(Queued(work, future))
        self._wake.set()
        return future

    async def close(self) -> None:
        """See ``Database.close``; closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        await self._task
        await self._pool.close()
        await self._writer.close()

    async def _write_batches(self) -> None:
        """The writer task: batch after batch, until closed and nothing is left."""
        while self._queued or not self._closed:
            await self._wake.wait()
            self._wake.clear()
            batch, self._queued = self._queued, []
            try:
                await self._write(batch)
            except BaseException as error:
                # Cancelled by a loop that ends: what the connection was doing is left half-done.
                self._writer.terminate()
                for queued in (*batch, *self._queued):
                    _fail(queued.future, OutcomeUnknown(f"the database's writer was stopped: {error!r}"))
                raise

    async def _write(self, batch: Sequence[Queued], *, as_rows: bool = True) -> None:
        """Run works together; if that fails, each alone."""
        if not batch:
            return
        try:
            results = await self._attempt([*steps([queued.work for queued in batch], as_rows=as_rows)])
        except (NotStored, OutcomeUnknown) as error:
            for queued in batch:
                _fail(queued.future, error)
        except Exception as error:
            if len(batch) == 1 and not (as_rows and isinstance(batch[0].work, RowsWork)):
                _fail(batch[0].future, error)
                return
            for queued in batch:
                await self._write([queued], as_rows=False)
        else:
            for queued, result in zip(batch, results, strict=True):
                if not queued.future.done():
                    queued.future.set_result(result)

    async def _attempt(self, parts: Sequence[Step]) -> list[Any]:
        """One transaction for all; begun anew when the connection is lost before the commit."""
        for _ in range(_ATTEMPTS):
            try:
                await self._reconnect()
                return await run_transaction(self._writer, parts)
            except ConnectionLost as error:
                log.warning("The database connection was lost and is replaced: %s", error.__cause__)
        raise NotStored("the database connection was lost again and again")

    async def _reconnect(self) -> None:
        if not self._writer.is_closed():
            return
        try:
            self._writer = await _connect(self._url)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NotStored(f"the database cannot be reached: {error}") from error


async def run_transaction(connection: Any, parts: Sequence[Step]) -> list[Any]:
    """Run works in order in one transaction and commit it; their results.

    Raises what a work raises (all is then rolled back), ``ConnectionLost`` when the
    connection broke before the commit and ``OutcomeUnknown`` when it broke in it.
    """
    alone = parts[0].rows if len(parts) == 1 else None
    text = ""
    try:
        if alone is not None:
            text = await _rows_text(connection, alone)
        else:
            await connection.execute("BEGIN")
            results = [result for part in parts for result in await _run(connection, part)]
    except Exception as error:
        if _is_lost(connection, error):
            raise ConnectionLost from error
        await connection.execute("ROLLBACK")
        raise
    try:
        if alone is not None:
            # A statement outside of a transaction is one.
            await connection.fetchrow(text, *_arguments(alone))
            return [None] * len(parts[0].works)
        tag = await connection.execute("COMMIT")
    except Exception as error:
        if _is_lost(connection, error):
            raise OutcomeUnknown("the database connection broke while committing") from error
        raise
    if tag != "COMMIT":
        raise ErrorPassedOver("a work went on after an SQL error, so that it was rolled back")
    return results


async def _run(connection: Any, part: Step) -> list[Any]:
    """Run a part of a transaction; the results of its works."""
    if part.rows is None:
        return [await work(PostgresTransaction(connection)) for work in part.works]
    await connection.fetchrow(await _rows_text(connection, part.rows), *_arguments(part.rows))
    return [None] * len(part.works)


#: The types of statements' parameters, by their texts; those are constants of the program.
_types: dict[str, tuple[str, ...]] = {}


async def _rows_text(connection: Any, rows: Sequence[Rows]) -> str:
    if _is_one_each(rows):
        return postgres_row_text(
            tuple([(statement.sql, len(statement.rows[0]), statement.each_changes) for statement in rows])
        )
    for statement in rows:
        if statement.sql not in _types:
            prepared = await connection.prepare(statement.sql)
            _types[statement.sql] = tuple(parameter.name for parameter in prepared.get_parameters())
    return postgres_rows_text(
        tuple((statement.sql, _types[statement.sql], statement.each_changes) for statement in rows)
    )


def _arguments(rows: Sequence[Rows]) -> Iterator[Any]:
    one_each = _is_one_each(rows)
    for statement in rows:
        yield from statement.rows[0] if one_each else zip(*statement.rows, strict=True)


def _is_one_each(rows: Sequence[Rows]) -> bool:
    """Whether there is one row for every statement, as where somebody sends while nobody else does."""
    return all(len(statement.rows) == 1 for statement in rows)


def _is_lost(connection: Any, error: Exception) -> bool:
    """Whether a connection is of no more use; if so, it is closed from now on."""
    if isinstance(error, _HANGING_UP):
        connection.terminate()
    return bool(connection.is_closed())


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
    else:
        # Its caller was cancelled; the work was not.
        log.warning("A write nobody waits for any more failed", exc_info=error)


async def _connect(url: str) -> Any:
    connection = await asyncpg.connect(
        url, timeout=_CONNECT_TIMEOUT_S, server_settings=_SESSION, **_STATEMENTS
    )
    await _prepare(connection)
    return connection


async def _prepare(connection: Any) -> None:
    # The type of SUM over integers; SQLite gives an integer too.
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


async def _leave_as_is(connection: Any) -> None:
    """Nothing to reset."""
