"""Moves what was committed from SQLite's write-ahead log into the database file, beside the writer.

By itself SQLite does so in the middle of whichever commit makes the log too long: that one waits
until thousands of pages are copied and flushed.  Here a thread of its own copies them, and the
writer adds the last few, those written in the meantime, between two transactions: only when
nothing is left to copy does the log begin anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from pathlib import Path

from homeserver.storage.sqlite_connections import connect

log = logging.getLogger(__name__)

#: How long the log gets before it is copied, in bytes.  SQLite cuts a longer one to this when it
#: begins anew, so that its length on disk tells how much of it is in use beyond that.
LOG_BYTES = 16 << 20

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA cache_size = -1024",  # KiB: it has no need of pages but to copy them
)
#: So few pages are left to the writer: a few milliseconds.
_FEW_PAGES = 200
#: So many rows are changed before the length of the log is looked at again: the messages of one moment.
_CHANGES = 100
#: How often what came in the meantime is copied before it is left to the writer whatever it is.
_ROUNDS = 5

_COPY = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """The thread that copies.  ``after_commit`` and ``close`` are for the writer thread only."""

    def __init__(self, path: Path, log_bytes: int = LOG_BYTES) -> None:
        self._log_path = f"{path}-wal"
        self._log_bytes = log_bytes
        self._begin_at = log_bytes
        #: How many rows the writer had changed when the log was looked at last.
        self._looked_at = 0
        self._connection = connect(path, "rw", _PRAGMAS)
        self._wanted = threading.Semaphore(0)
        self._running = False
        self._copied = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-checkpoints", daemon=True)
        self._thread.start()

    def after_commit(self, writer: sqlite3.Connection) -> None:
        """Have the log copied where it has become long; finish what the thread has copied."""
        if self._running:
            return
        if self._copied:
            self._copied = False
            self._finish(writer)
        elif writer.total_changes - self._looked_at >= _CHANGES and self._is_long(writer):
            self._running = True
            self._wanted.release()

    def close(self) -> None:
        """Wait for what is being copied, and end the thread."""
        self._closed = True
        self._wanted.release()
        self._thread.join()
        self._connection.close()

    def _finish(self, writer: sqlite3.Connection) -> None:
        left = _copy(writer)
        # Whoever reads an old state holds some of it back: then it is tried again when the log has grown.
        self._begin_at = self._log_bytes
        if left:
            self._begin_at = self._log_size() + self._log_bytes // 2

    def _is_long(self, writer: sqlite3.Connection) -> bool:
        self._looked_at = writer.total_changes
        return self._log_size() > self._begin_at

    def _log_size(self) -> int:
        try:
            return os.stat(self._log_path).st_size
        except FileNotFoundError:
            return 0

    def _run(self) -> None:
        while self._wanted.acquire() and not self._closed:
            for _ in range(_ROUNDS):
                if _copy(self._connection) <= _FEW_PAGES:
                    break
            # In this order: the writer looks at the second only where the first is false.
            self._copied = True
            self._running = False


def _copy(connection: sqlite3.Connection) -> int:
    """Copy what can be copied now; how many pages of the log are left."""
    try:
        _, pages, copied = connection.execute(_COPY).fetchone()
    except sqlite3.Error as error:
        # The log keeps everything; a full disk is told by the writes themselves.
        log.warning("The write-ahead log could not be copied into the database: %s", error)
        return 1
    return int(pages - copied)
