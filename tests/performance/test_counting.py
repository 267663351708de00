"""The counting tools count."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from homeserver.storage.database import Database, Transaction
from tests.performance.counting import counted_calls, counted_statements, counted_tasks, suspensions


async def test_statements_of_the_writer_and_of_every_reader_are_counted(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        await tx.fetch_value("SELECT 1")

    async with counted_statements(database) as seen:
        await database.write(work)
        await database.read.fetch_value("SELECT 2")
        await asyncio.gather(*(database.scan.fetch_value("SELECT 3") for _ in range(3)))
    await database.read.fetch_value("SELECT 4")

    assert seen.written.count("SELECT 1") == 1
    assert sorted(seen.read) == ["SELECT 2", "SELECT 3", "SELECT 3", "SELECT 3"]
    assert len(seen) == len(seen.written) + 4


async def test_tasks_are_counted_by_the_name_of_their_coroutine() -> None:
    async def work() -> None: ...

    with counted_tasks() as made:
        await asyncio.gather(work(), work())
    await asyncio.create_task(work())

    assert [name.rpartition(".")[2] for name in made] == ["work", "work"]


async def test_suspensions_are_counted_and_the_result_is_passed_on() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    counted = await suspensions(work())

    assert (counted.times, counted.result) == (2, "done")


async def test_what_is_counted_may_be_cancelled_and_may_fail() -> None:
    endless: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            await endless
        except asyncio.CancelledError:
            raise LookupError from None

    task = asyncio.create_task(suspensions(work()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(LookupError):
        await task


def test_calls_are_counted_until_the_function_is_put_back() -> None:
    module = SimpleNamespace(double=lambda number: 2 * number)

    with counted_calls(module, "double") as calls:
        assert module.double(2) == 4
        assert module.double(3) == 6
    module.double(4)

    assert calls == [(2,), (3,)]
