"""What was acknowledged survives the process being killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest

WRITER = """
import asyncio, sys
from pathlib import Path
from homeserver.storage import open_database

async def main():
    database = await open_database(sys.argv[1], Path(sys.argv[2]))
    last = await database.read.fetch_value("SELECT coalesce(max(id), 0) FROM rows")

    async def write_on(number):
        while True:
            await database.write(lambda tx: tx.execute("INSERT INTO rows VALUES ($1, $2)", number, "x" * 500))
            print(number, flush=True)
            number += 10

    await asyncio.gather(*(write_on(last + offset) for offset in range(1, 11)))

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]
ROUNDS = 4


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_rows.sql").write_text("CREATE TABLE rows (id INTEGER PRIMARY KEY, body TEXT NOT NULL);")
    return folder


async def acknowledged_before_the_kill(path: Path, schema: Path, enough: int) -> set[int]:
    """Let a process write until ``enough`` rows were acknowledged, and kill it in the middle of it."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, path, schema, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    said = b""
    while said.count(b"\n") < enough and (more := await writer.stdout.read(4096)):
        said += more
    writer.kill()
    said += await writer.stdout.read()
    await writer.wait()
    whole_lines = said[: said.rfind(b"\n")]
    return {int(line) for line in whole_lines.split()}


async def test_every_acknowledged_row_is_there_after_a_kill(tmp_path: Path, schema: Path) -> None:
    path = tmp_path / "crash.db"
    acknowledged: set[int] = set()
    for round_number in range(1, ROUNDS + 1):
        new = await acknowledged_before_the_kill(path, schema, enough=150 * round_number)
        assert len(new) >= 150 * round_number
        acknowledged |= new
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = {row[0] for row in connection.execute("SELECT id FROM rows")}
        assert acknowledged <= stored
