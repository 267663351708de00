"""What every storage engine promises (``storage/database.py``), told on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from homeserver.storage import open_database
from homeserver.storage.database import Database, Transaction
from homeserver.storage.errors import DatabaseClosed

SCHEMA = """
CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    name TEXT UNIQUE,
    data BLOB,
    score REAL
);
CREATE TABLE replies (
    note_id INTEGER NOT NULL REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED
);
"""


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_notes.sql").write_text(SCHEMA)
    return folder


@pytest.fixture
async def notes(empty_database_url: str, schema: Path) -> AsyncIterator[Database]:
    database = await open_database(empty_database_url, schema)
    yield database
    await database.close()


def adding(number: int, name: str | None = None) -> Callable[[Transaction], Awaitable[int]]:
    async def add(tx: Transaction) -> int:
        await tx.execute("INSERT INTO notes (id, name) VALUES ($1, $2)", number, name)
        return number

    return add


def adding_then_failing(number: int) -> Callable[[Transaction], Awaitable[int]]:
    async def add_and_fail(tx: Transaction) -> int:
        await adding(number)(tx)
        raise LookupError("changed my mind")

    return add_and_fail


async def ids(database: Database) -> list[int]:
    return [row[0] for row in await database.read.fetch("SELECT id FROM notes ORDER BY id")]


async def test_a_write_returns_its_result_and_is_there_for_every_reader(notes: Database) -> None:
    assert await notes.write(adding(1, "first")) == 1

    for reader in (notes.read, notes.scan):
        assert await reader.fetch_value("SELECT name FROM notes WHERE id = $1", 1) == "first"


async def test_a_work_reads_what_it_wrote(notes: Database) -> None:
    async def add_and_count(tx: Transaction) -> Any:
        await adding(1)(tx)
        return await tx.fetch_value("SELECT count(*) FROM notes")

    assert await notes.write(add_and_count) == 1


async def test_works_run_and_finish_in_the_order_of_the_calls(notes: Database) -> None:
    finished: list[int] = []

    def counting(number: int) -> Callable[[Transaction], Awaitable[Any]]:
        async def count_and_add(tx: Transaction) -> Any:
            before = await tx.fetch_value("SELECT count(*) FROM notes")
            await adding(number)(tx)
            return before

        return count_and_add

    futures = [notes.write(counting(number)) for number in range(50)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: finished.append(number))  # type: ignore[misc]

    assert await asyncio.gather(*futures) == list(range(50))
    assert finished == list(range(50))


async def test_a_work_is_queued_by_the_call_even_if_nobody_waits(notes: Database) -> None:
    notes.write(adding(1))
    await notes.write(adding(2))
    assert await ids(notes) == [1, 2]


async def test_a_failing_work_undoes_only_itself(notes: Database) -> None:
    results = await asyncio.gather(
        notes.write(adding(1)),
        notes.write(adding_then_failing(2)),
        notes.write(adding(1)),
        notes.write(adding(3)),
        return_exceptions=True,
    )

    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], Exception)
    assert (results[0], results[3]) == (1, 3)
    assert await ids(notes) == [1, 3]


async def test_a_lone_failing_work_leaves_the_database_usable(notes: Database) -> None:
    with pytest.raises(LookupError):
        await notes.write(adding_then_failing(1))
    with pytest.raises(Exception, match="nosuchtable"):
        await notes.write(lambda tx: tx.execute("DELETE FROM nosuchtable"))

    await notes.write(adding(2))
    assert await ids(notes) == [2]


async def test_a_commit_that_fails_fails_its_work_and_no_later_one(notes: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await notes.write(lambda tx: tx.execute("INSERT INTO replies (note_id) VALUES ($1)", 7))

    await notes.write(adding(7))
    await notes.write(lambda tx: tx.execute("INSERT INTO replies (note_id) VALUES ($1)", 7))
    assert await notes.read.fetch("SELECT note_id FROM replies") == [(7,)]


async def test_a_caller_that_is_cancelled_does_not_cancel_its_work(notes: Database) -> None:
    caller = asyncio.ensure_future(notes.write(adding(1)))
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    await notes.write(adding(2))
    assert await ids(notes) == [1, 2]


async def test_many_concurrent_writers_and_readers_see_whole_transactions(notes: Database) -> None:
    async def add_a_pair(tx: Transaction) -> None:
        first = await tx.fetch_value("SELECT coalesce(max(id), 0) + 1 FROM notes")
        await adding(first)(tx)
        await adding(first + 1)(tx)

    async def write_ten() -> None:
        for _ in range(10):
            await notes.write(add_a_pair)

    async def read_ten() -> None:
        for _ in range(10):
            assert await notes.read.fetch_value("SELECT count(*) FROM notes") % 2 == 0
            assert await notes.scan.fetch_value("SELECT count(*) FROM notes") % 2 == 0

    await asyncio.gather(*(write_ten() for _ in range(8)), *(read_ten() for _ in range(4)))
    assert await ids(notes) == list(range(1, 161))


@pytest.mark.parametrize("access", ["read", "scan", "transaction"])
async def test_rows_are_tuples_by_position_and_absence_is_none(notes: Database, access: str) -> None:
    async def add_two(tx: Transaction) -> None:
        await tx.execute_many(
            "INSERT INTO notes (id, name, data, score) VALUES ($1, $2, $3, $4)",
            [(1, "é\N{SNOWMAN}", b"\x00\xff", 0.5), (2**62, None, None, None)],
        )

    async def look(reader: Any) -> None:
        number, name, data, score = await reader.fetch_row("SELECT * FROM notes WHERE id = $1", 1)
        assert (number, name, data, score) == (1, "é\N{SNOWMAN}", b"\x00\xff", 0.5)
        row = await reader.fetch_row("SELECT id, name, data, score FROM notes WHERE id > $1", 1)
        assert tuple(row) == (2**62, None, None, None)
        assert await reader.fetch_row("SELECT id FROM notes WHERE id = $1", 3) is None
        assert await reader.fetch_value("SELECT id FROM notes WHERE id = $1", 3) is None
        assert await reader.fetch("SELECT id FROM notes WHERE id = $1", 3) == []
        assert await reader.fetch("SELECT id FROM notes ORDER BY id DESC") == [(2**62,), (1,)]
        total = await reader.fetch_value("SELECT sum(id) FROM notes")
        assert (total, type(total)) == (2**62 + 1, int)

    await notes.write(add_two)
    if access == "transaction":
        await notes.write(look)
    else:
        await look(getattr(notes, access))


@pytest.mark.parametrize("access", ["read", "scan", "transaction"])
async def test_fetch_in_takes_any_number_of_ints_or_strings(notes: Database, access: str) -> None:
    async def look(reader: Any) -> None:
        by_id = "SELECT id FROM notes WHERE id IN $1 ORDER BY id"
        assert await reader.fetch_in(by_id, [3, 1, 99, 3]) == [(1,), (3,)]
        assert await reader.fetch_in(by_id, ()) == []
        assert len(await reader.fetch_in(by_id, range(2000))) == 4
        by_name = "SELECT id FROM notes WHERE name IN $1 AND id > $2 AND id < $3 ORDER BY id"
        assert await reader.fetch_in(by_name, ["n1", "n2", 'quo"te', "n9"], 1, 10) == [(2,), (4,)]
        assert await reader.fetch_in(by_name, [], 1, 10) == []
        others = "SELECT id FROM notes WHERE id NOT IN $1 ORDER BY id"
        assert await reader.fetch_in(others, [1, 3]) == [(2,), (4,)]
        with pytest.raises(ValueError, match="IN"):
            await reader.fetch_in("SELECT id FROM notes WHERE id = $1", [1])

    for number, name in ((1, "n1"), (2, "n2"), (3, "n3"), (4, 'quo"te')):
        await notes.write(adding(number, name))
    if access == "transaction":
        await notes.write(look)
    else:
        await look(getattr(notes, access))


async def test_execute_counts_the_rows_it_changed(notes: Database) -> None:
    async def change(tx: Transaction) -> list[int]:
        await tx.execute_many("INSERT INTO notes (id) VALUES ($1)", ((n,) for n in range(5)))
        return [
            await tx.execute("UPDATE notes SET name = NULL WHERE id < $1", 3),
            await tx.execute("INSERT INTO notes (id) VALUES ($1) ON CONFLICT DO NOTHING", 4),
            await tx.execute("DELETE FROM notes"),
        ]

    assert await notes.write(change) == [3, 0, 5]


async def test_returning_gives_the_changed_rows(notes: Database) -> None:
    async def add(tx: Transaction) -> Any:
        return await tx.fetch_row("INSERT INTO notes (name) VALUES ($1) RETURNING id, name", "numbered")

    assert tuple(await notes.write(add)) == (1, "numbered")
    assert await ids(notes) == [1]


async def test_readers_cannot_write(notes: Database) -> None:
    for reader in (notes.read, notes.scan):
        with pytest.raises(Exception, match=r"(?i)read.?only"):
            await reader.fetch("DELETE FROM notes")


async def test_text_compares_byte_by_byte(notes: Database) -> None:
    for number, name in enumerate(["b", "B", "a", "é"]):
        await notes.write(adding(number, name))
    rows = await notes.read.fetch("SELECT name FROM notes ORDER BY name")
    assert [row[0] for row in rows] == ["B", "a", "b", "é"]


async def test_closing_finishes_what_is_queued_and_then_refuses(
    empty_database_url: str, schema: Path
) -> None:
    first = await open_database(empty_database_url, schema)
    futures = [first.write(adding(number)) for number in range(20)]
    await first.close()
    await first.close()

    assert [future.result() for future in futures] == list(range(20))
    with pytest.raises(DatabaseClosed):
        first.write(adding(21))

    second = await open_database(empty_database_url, schema)
    assert await ids(second) == list(range(20))
    await second.close()
