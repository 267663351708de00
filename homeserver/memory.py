"""How this process treats memory: the C library's allocator and Python's garbage collector.

Set once for a server that runs for months; both settings change when memory is given back and
when it is looked through, and nothing else.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# The numbers of <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_KEPT_FREE_BYTES: Final = 1024 * 1024
_OWN_MAPPING_BYTES: Final = 256 * 1024
_ARENAS: Final = 2

#: New containers (net) until the youngest are looked through; of those times, how many until the
#: middle ones are, and how many of those until all are.  To look through so many takes a few
#: milliseconds, in which everybody waits: of 50,000 it was 25.
_THRESHOLDS: Final = (10_000, 5, 40)


def give_back_what_is_freed() -> None:
    """Have the C library return freed memory to the system.  To be called before there are threads.

    Left alone, glibc raises its thresholds to the largest block it saw freed: after the first
    password hash (19 MiB) as much stays with the process for ever.  And every thread gets an arena
    of its own, of which none gives anything to another.  Does nothing with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
    mallopt(_M_ARENA_MAX, _ARENAS)


def collect_rarely() -> None:
    """Look for unreachable cycles seldom, and never again among what is there now.

    To be called when the server has started: its modules and what was wired stay until the end.
    With Python's own thresholds (700, 10, 10) a busy server spends a twelfth of its time in the
    collector, whose full runs hold everybody up; nearly all that requests leave behind is freed
    by reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
