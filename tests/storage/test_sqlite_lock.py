"""One process at a time on an SQLite file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from homeserver.storage import open_database
from homeserver.storage.errors import DatabaseInUse

HOLD = """
import asyncio, sys
from homeserver.storage import open_database

async def main():
    database = await open_database(sys.argv[1])
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


async def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "inglenook.db"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, path, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"open\n"
        with pytest.raises(DatabaseInUse, match=rf"{path} is in use by process {holder.pid};"):
            await open_database(str(path))
    finally:
        holder.kill()
        await holder.communicate()

    await (await open_database(str(path))).close()


async def test_the_same_process_is_refused_too_by_any_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "inglenook.db"
    first = await open_database(str(path))
    (tmp_path / "alias.db").symlink_to(path)

    for url in (f"sqlite://{path}", str(tmp_path / "alias.db")):
        with pytest.raises(DatabaseInUse):
            await open_database(url)

    await first.close()
    await (await open_database(str(path))).close()


async def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(ValueError, match="mysql"):
        await open_database("mysql://localhost/x")
