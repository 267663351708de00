"""What looking things up at other servers needs: a bounded memory, one question at a time, and restraint."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from homeserver.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A dictionary of bounded size that forgets what was asked for longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which counts as a use of it."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember a value, forgetting the oldest when there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)


class InFlight(Generic[K, V]):
    """Lets everyone who asks the same question at the same time wait for one answer.

    The work goes on when an asker gives up, since others may be waiting for it.
    """

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of ``work``, or of the same work already going on; raises what it raises."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what is going on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        # Marks the exception as seen: with no asker left nobody else would look at it.
        if not task.cancelled():
            task.exception()


async def wait_at_most(seconds: float, work: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all of it has ended, or so long; raises what any of it raised."""
    if work:
        done, _ = await asyncio.wait(work, timeout=seconds)
        for each in done:
            each.result()


@dataclass(slots=True)
class _Asked:
    at: float
    for_names: set[str] = field(default_factory=set)
    answered: bool = False
    again: bool = False


class Restraint:
    """Says whether a server may be asked again: after ``seconds``, and for a new name once before.

    A server that has answered just now and is said to have something else since is worth a
    second question; more than that would let anybody have it asked at will.
    """

    def __init__(self, clock: Clock, seconds: float, size: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._asked: Recent[str, _Asked] = Recent(size)

    def allows(self, server_name: str, names: Collection[str]) -> bool:
        """Whether to ask for names nothing is known of; if so, the server counts as asked."""
        now = self._clock.monotonic()
        last = self._asked.get(server_name)
        if last is None or now >= last.at + self._seconds:
            self._asked.put(server_name, _Asked(now, set(names)))
            return True
        if last.again or not last.answered or last.for_names.issuperset(names):
            return False
        last.again = True
        last.for_names.update(names)
        return True

    def answered(self, server_name: str) -> None:
        """The server has answered what it was asked last."""
        last = self._asked.get(server_name)
        if last is not None:
            last.answered = True
