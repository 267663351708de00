"""How long the turns of an event loop are: the processor time of its thread, not what a clock says.

A thread's processor time is the same whatever else the machine does, and a yardstick that the same
thread is held to tells how fast the machine is.  Only what is asyncio's own loop is measured: its
handles are Python's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

#: What ``yardstick`` does takes about so long on the machine the bounds were found on, in seconds.
YARDSTICK_S: Final = 0.005


@dataclass
class Turns:
    """The longest turn so far, in seconds of processor time, and what it was."""

    longest: float = 0.0
    what: str = ""


@contextmanager
def longest_turn() -> Iterator[Turns]:
    """The turns that the loops of this thread take while this is entered."""
    turns, thread = Turns(), threading.get_ident()
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        if threading.get_ident() != thread:
            run(handle)
            return
        started = time.thread_time()
        run(handle)
        taken = time.thread_time() - started
        if taken > turns.longest:
            turns.longest, turns.what = taken, repr(handle)

    asyncio.Handle._run = measured  # type: ignore[method-assign]
    try:
        yield turns
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


def yardstick() -> float:
    """How many times longer than where the bounds were found this machine takes for the same, at best."""
    return min(_once() for _ in range(5)) / YARDSTICK_S


def _once() -> float:
    start = time.thread_time()
    counted: dict[str, int] = {}
    for number in range(10_000):
        word = f"{number % 977}"
        counted[word] = counted.get(word, 0) + len(word)
    return time.thread_time() - start
