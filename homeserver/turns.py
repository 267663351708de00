"""Long work that leaves the event loop to others every few milliseconds.

For work that cannot leave the loop's thread: it needs what is in memory here, and another thread would
take the interpreter's lock just the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from time import perf_counter
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: How long one turn is, in seconds: long enough for the switch to cost nothing beside it.
TURN_S: Final = 0.004


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, one after the other; between two of them others get their turn when it is time."""
    ends = perf_counter() + TURN_S
    for item in items:
        yield item
        if perf_counter() > ends:
            await asyncio.sleep(0)
            ends = perf_counter() + TURN_S


async def each_in_turns(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What ``work`` makes of each of the items, others getting their turn meanwhile."""
    made: list[R] = []
    ends = perf_counter() + TURN_S
    for item in items:
        made.append(work(item))
        if perf_counter() > ends:
            await asyncio.sleep(0)
            ends = perf_counter() + TURN_S
    return made
