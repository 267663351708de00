"""What is PostgreSQL's own: shared transactions begun anew, and connections that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from homeserver.storage import open_database
from homeserver.storage.database import Database, Transaction
from homeserver.storage.errors import ErrorPassedOver, NotStored, OutcomeUnknown
from tests.databases import Cluster, fresh_postgres

BREAK = "SELECT pg_terminate_backend(pg_backend_pid())"
BREAK_AT_COMMIT = (
    "CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER breaking AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW WHEN (NEW.id < 0) EXECUTE FUNCTION break()",
)


@pytest.fixture
async def notes(postgres_cluster: Cluster, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "0001_notes.sql").write_text("CREATE TABLE notes (id INTEGER PRIMARY KEY);")
    async with fresh_postgres(postgres_cluster) as url:
        database = await open_database(url, tmp_path)
        yield database
        await database.close()


async def add(tx: Transaction, number: int) -> Any:
    """Add a note; the number of the transaction it was done in."""
    await tx.execute("INSERT INTO notes (id) VALUES ($1)", number)
    return await tx.fetch_value("SELECT CAST(pg_current_xact_id() AS TEXT)")


async def ids(database: Database) -> list[int]:
    return [row[0] for row in await database.read.fetch("SELECT id FROM notes ORDER BY id")]


async def test_works_queued_together_share_a_transaction(notes: Database) -> None:
    transactions = await asyncio.gather(*(notes.write(lambda tx, n=n: add(tx, n)) for n in range(5)))  # type: ignore[misc]
    assert len(set(transactions)) == 1


async def test_works_queued_with_a_failing_one_get_transactions_of_their_own(notes: Database) -> None:
    results = await asyncio.gather(
        *(notes.write(lambda tx, n=n: add(tx, n)) for n in (1, 2, 1, 3)),  # type: ignore[misc]
        return_exceptions=True,
    )
    assert isinstance(results[2], Exception)
    assert len({results[0], results[1], results[3]}) == 3
    assert await ids(notes) == [1, 2, 3]


async def test_a_work_cannot_pass_over_an_sql_error(notes: Database) -> None:
    async def try_and_go_on(tx: Transaction) -> None:
        with pytest.raises(Exception, match="nowhere"):
            await tx.execute("DELETE FROM nowhere")

    results = await asyncio.gather(
        notes.write(lambda tx: add(tx, 1)), notes.write(try_and_go_on), return_exceptions=True
    )
    assert isinstance(results[1], ErrorPassedOver)
    assert await ids(notes) == [1]


async def test_works_are_run_again_when_the_connection_is_lost_before_the_commit(notes: Database) -> None:
    runs = 0

    async def break_the_first_time(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await add(tx, 2)
        if runs == 1:
            await tx.fetch_value(BREAK)

    await asyncio.gather(notes.write(lambda tx: add(tx, 1)), notes.write(break_the_first_time))

    assert runs == 2
    assert await ids(notes) == [1, 2]


async def test_a_work_that_always_breaks_the_connection_is_given_up(notes: Database) -> None:
    with pytest.raises(NotStored):
        await notes.write(lambda tx: tx.fetch_value(BREAK))
    await notes.write(lambda tx: add(tx, 1))
    assert await ids(notes) == [1]


async def test_a_connection_lost_while_idle_is_replaced(notes: Database) -> None:
    writer = await notes.write(lambda tx: tx.fetch_value("SELECT pg_backend_pid()"))
    assert await notes.read.fetch_value("SELECT pg_terminate_backend($1)", writer)

    await notes.write(lambda tx: add(tx, 1))
    assert await ids(notes) == [1]


async def test_a_connection_lost_in_the_commit_leaves_the_outcome_unknown(notes: Database) -> None:
    async def prepare(tx: Transaction) -> None:
        for statement in BREAK_AT_COMMIT:
            await tx.execute(statement)

    await notes.write(prepare)
    results = await asyncio.gather(
        notes.write(lambda tx: add(tx, 1)), notes.write(lambda tx: add(tx, -1)), return_exceptions=True
    )
    assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown]

    await notes.write(lambda tx: add(tx, 2))
    assert await ids(notes) == [2]


async def test_long_reads_leave_connections_for_short_ones(notes: Database) -> None:
    scans = [asyncio.ensure_future(notes.scan.fetch("SELECT pg_sleep(60)")) for _ in range(20)]
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
    running = 0
    while running < 3:
        running = await notes.read.fetch_value(sleeping, "%sleep(60)")

    assert await asyncio.wait_for(notes.read.fetch_value("SELECT 1"), 10) == 1
    for scan in scans:
        scan.cancel()
    await asyncio.gather(*scans, return_exceptions=True)
