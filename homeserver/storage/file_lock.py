"""One process at a time on a file, told by a lock file beside it (``name.lock``).

The kernel drops the lock when its holder ends in any way, so there is nothing to
clean up after a crash; the lock file itself stays.  A forked child shares the lock:
processes that may outlive the server have to be spawned.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from homeserver.storage.errors import DatabaseInUse


def real_path(path: Path) -> Path:
    """The one name of a file, so that a symbolic link to it does not get a lock of its own."""
    return path.resolve()


def take_lock(path: Path) -> int:
    """Lock a file; the lock lasts until the descriptor returned is closed.

    Raises ``DatabaseInUse`` when it is locked already, by this process or another.
    """
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace") or "unknown"
        os.close(lock)
        raise DatabaseInUse(
            f"{path} is in use by process {holder}; only one server process may have it open"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
