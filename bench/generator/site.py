"""What the load generator has to know of a server that the other process started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Site:
    """A running server: where it answers, and by what its work can be measured.

    ``database_url`` is a PostgreSQL URL or the path of an SQLite file, and ``database_pid`` the
    process that is parent of all of PostgreSQL's.
    """

    software: str
    server_name: str
    client_url: str
    federation_url: str
    pid: int
    database_url: str
    database_pid: int | None
    authority: Path
