"""What a piece of work does, counted: statements, tasks, suspensions, calls.

The tests beside this module hold a hot path to such counts, or to their ratio between a
small case and a large one.  They are the same on every machine, which times are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Generic, TypeVar

from homeserver.storage.database import Database

T = TypeVar("T")


@dataclass(slots=True)
class Statements:
    """The SQL texts that ran, in order; ``BEGIN``, ``SAVEPOINT`` and ``COMMIT`` among them.

    SQLite gives them with their values filled in and names each row of an ``execute_many``;
    PostgreSQL gives them with their ``$1`` and an ``execute_many`` once.
    """

    written: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.written) + len(self.read)


@asynccontextmanager
async def counted_statements(database: Database) -> AsyncIterator[Statements]:
    """The statements of either engine while this is entered: the writer's, and those of all readers."""
    seen = Statements()
    watch = _watch_sqlite if database.engine == "sqlite" else _watch_postgres
    async with watch(database, seen):
        yield seen


@contextmanager
def counted_tasks() -> Iterator[list[str]]:
    """The names of the coroutines that the running loop makes tasks of while this is entered."""
    made: list[str] = []
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(getattr(coroutine, "__qualname__", repr(coroutine)))
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(before)


@dataclass(slots=True)
class Suspended(Generic[T]):
    """What an awaitable came to, and how many times it gave the loop its turn before that."""

    times: int
    result: T


async def suspensions(work: Awaitable[T]) -> Suspended[T]:
    """Await ``work`` in this task and count how often it suspends; raises what it raises."""
    counted = _Counting(work)
    result = await counted
    return Suspended(counted.times, result)


class _Counting(Generic[T]):
    """An awaitable that passes on each step of another."""

    def __init__(self, work: Awaitable[T]) -> None:
        self._work = work
        self.times = 0

    def __await__(self) -> Generator[Any, Any, T]:
        steps: Any = self._work.__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            self.times += 1
            try:
                yield waits_for
                resume = partial(next, steps)
            except BaseException as error:
                resume = partial(steps.throw, error)


@contextmanager
def counted_calls(owner: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The positional arguments of each call of ``owner.name`` while this is entered.

    ``owner`` is the module or the class in which callers look the function up: a function
    imported by name is counted in the module that imported it.
    """
    calls: list[tuple[Any, ...]] = []
    function: Callable[..., Any] = vars(owner)[name]

    @wraps(function)
    def counted(*args: Any, **named: Any) -> Any:
        calls.append(args)
        return function(*args, **named)

    setattr(owner, name, counted)
    try:
        yield calls
    finally:
        setattr(owner, name, function)


@asynccontextmanager
async def _watch_sqlite(database: Any, seen: Statements) -> AsyncIterator[None]:
    scans = database._scanner
    connect = scans._connect

    async def watched_connection() -> Any:
        connection = await connect()
        await connection.set_trace_callback(seen.read.append)
        return connection

    async def watch(written: Any, read: Any) -> None:
        database._writer.set_trace_callback(written)
        database._reader.set_trace_callback(read)
        for connection in scans._idle:
            await connection.set_trace_callback(read)

    await watch(seen.written.append, seen.read.append)
    scans._connect = watched_connection
    try:
        yield
    finally:
        scans._connect = connect
        await watch(None, None)


@asynccontextmanager
async def _watch_postgres(database: Any, seen: Statements) -> AsyncIterator[None]:
    writer, pool = database._writer, database._pool
    prepare = pool._init
    readers = [holder._con for holder in pool._holders if holder._con is not None]

    def written(record: Any) -> None:
        seen.written.append(record.query)

    def read(record: Any) -> None:
        seen.read.append(record.query)

    async def prepare_watched(connection: Any) -> None:
        await prepare(connection)
        connection.add_query_logger(read)
        readers.append(connection)

    writer.add_query_logger(written)
    for connection in readers:
        connection.add_query_logger(read)
    pool._init = prepare_watched
    try:
        yield
        # asyncpg tells of a statement in the loop's next turn.
        await asyncio.sleep(0)
    finally:
        pool._init = prepare
        writer.remove_query_logger(written)
        for connection in readers:
            connection.remove_query_logger(read)
