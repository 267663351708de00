"""What processes use: processor time, resident memory, and bytes of a database (Linux only)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]

_TICKS = os.sysconf("SC_CLK_TCK")

#: The tables that say which event is which room's state, now and at any event.
STATE_TABLES = {
    "inglenook": ("state_keys", "state_log", "state_checkpoints", "state_overlays", "current_state"),
    "synapse": (
        "state_groups",
        "state_groups_state",
        "state_group_edges",
        "event_to_state_groups",
        "current_state_events",
        "current_state_delta_stream",
    ),
}


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time the processes have used, and those of their children that have ended."""
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    # The clock of another process, as clock_getcpuclockid(3) names it, counts nanoseconds where
    # /proc counts hundredths of a second; only children that ended are counted there alone.
    try:
        own = time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
    fields = _stat(pid)
    return own + (int(fields[13]) + int(fields[14])) / _TICKS if fields else own


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on; none where the process is gone."""
    try:
        # The second is the command's name and may hold spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def memory_bytes(pids: Iterable[int]) -> tuple[int, int]:
    """Resident memory of the processes together: RSS, and PSS, which counts what they share once."""
    rss = pss = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        rss += 1024 * kilobytes.get("Rss", 0)
        pss += 1024 * kilobytes.get("Pss", 0)
    return rss, pss


async def database_bytes(url: str) -> int:
    """What a database takes: SQLite's pages in use, what is in the WAL among them; ``pg_database_size``."""
    if not url.startswith("postgres"):
        return _sqlite_bytes(Path(url))
    return await _postgres_bytes(url, "SELECT pg_database_size(current_database())")


async def state_bytes(url: str, software: str) -> int:
    """What of it a server's tables of state take, with their indexes.

    On SQLite what is used of their pages, as the pages that are full by a hair would be counted
    wholly or not at all otherwise; on PostgreSQL their files (``pg_total_relation_size``).
    """
    tables = STATE_TABLES[software]
    names = ", ".join(f"'{table}'" for table in tables)
    if url.startswith("postgres"):
        return await _postgres_bytes(
            url, f"SELECT SUM(pg_total_relation_size(name::regclass)) FROM unnest(ARRAY[{names}]) AS name"
        )
    with closing(sqlite3.connect(f"file:{url}?mode=ro", uri=True)) as connection:
        used = connection.execute(
            f"""SELECT SUM(pgsize - unused) FROM dbstat WHERE aggregate = TRUE
                AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name IN ({names}))"""
        )
        return int(used.fetchone()[0])


async def _postgres_bytes(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


def _sqlite_bytes(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * size
