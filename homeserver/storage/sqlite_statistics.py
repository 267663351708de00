"""What SQLite's planner is told of the tables, so that it chooses the same indexes on every server.

Without statistics it takes ten rows for what one value of a key has, and would look through
everybody in a room for the handful of entries that are no members.  These figures are made up, of
the right order for a large server; they decide nothing but which index is used.
"""

from __future__ import annotations

import sqlite3

#: Table, index, and ``sqlite_stat1.stat``: rows in all, then rows alike in one, two, ... columns.
_STATISTICS = (
    ("current_state", "current_state", "1000000 1000 1"),
    ("current_state", "current_state_by_event", "1000000 1000 1"),
    ("current_state", "current_state_members", "990000 900 300"),
    ("current_state", "current_state_others", "10000 10"),
    ("current_state", "current_state_member_rooms", "900000 10"),
)


def tell_planner(connection: sqlite3.Connection) -> None:
    """Store the figures where they are not stored yet; connections opened from now on go by them."""
    connection.execute("ANALYZE sqlite_schema")
    known = connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY tbl, idx").fetchall()
    if known != sorted(_STATISTICS):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM sqlite_stat1")
        connection.executemany("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", _STATISTICS)
        connection.execute("COMMIT")
