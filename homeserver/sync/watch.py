"""One user's ear at the notifier, registered once and kept, however many requests come and go.

Registering costs as much as the user has rooms; a request must not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeAlias

from homeserver.clock import Clock
from homeserver.sync.notifier import Notifier

#: Of users none of whose requests is under way; what is dropped is registered anew when they come again.
_REMEMBERED = 2000
_IDLE_S = 600.0
#: Tokens of one user's devices.
_REMEMBERED_TOLD = 8

#: A device, and the token it was given.
_Told: TypeAlias = tuple[str | None, str]


class Watch:
    """Counts news for a user and their rooms, and lets requests wait for more.

    A request takes ``heard``, reads, and then waits for what came since: nothing is missed between.
    """

    def __init__(self, notifier: Notifier, user_id: str) -> None:
        self._notifier = notifier
        self._user_id = user_id
        self._rooms: frozenset[int] = frozenset()
        self._waiting: set[asyncio.Future[None]] = set()
        self._watching: set[Watching] = set()
        #: How often there was news.
        self.heard = 0
        #: What devices were told, as their token, after so much had been heard.
        self._told: OrderedDict[_Told, int] = OrderedDict()
        notifier.add(self, user_id, ())

    @property
    def is_waited_for(self) -> bool:
        """Whether a request waits."""
        return bool(self._waiting)

    @contextlib.contextmanager
    def watching(self, rooms: frozenset[int]) -> Iterator[Watching]:
        """One request's view of the news, from now on."""
        watching = Watching(self, rooms)
        self._watching.add(watching)
        try:
            yield watching
        finally:
            self._watching.discard(watching)

    def follow(self, rooms: frozenset[int]) -> None:
        """The user is in these rooms by now."""
        if rooms is not self._rooms:
            self._notifier.remove(self, self._user_id, self._rooms - rooms)
            self._notifier.add(self, self._user_id, rooms - self._rooms)
            self._rooms = rooms

    def close(self) -> None:
        """Listen no more."""
        self._notifier.remove(self, self._user_id, self._rooms)

    def note_told(self, device_id: str | None, token: str, heard: int) -> None:
        """A device was told everything that had been heard of then, up to a token."""
        self._told[device_id, token] = heard
        self._told.move_to_end((device_id, token))
        if len(self._told) > _REMEMBERED_TOLD:
            self._told.popitem(last=False)

    def has_told(self, device_id: str | None, token: str) -> bool:
        """Whether there has been no news since a device was given a token."""
        return self._told.get((device_id, token)) == self.heard

    async def wait(self, heard: int, seconds: float) -> bool:
        """Wait for news after ``heard``; false when there was none for so long.

        Raises what ``dismiss`` was given.
        """
        if self.heard == heard and seconds > 0 and not self._notifier.closing:
            loop = asyncio.get_running_loop()
            news: asyncio.Future[None] = loop.create_future()
            self._waiting.add(news)
            timer = loop.call_later(seconds, _time_is_over, news)
            try:
                await news
            finally:
                timer.cancel()
                self._waiting.discard(news)
        return self.heard != heard

    def wake(self) -> bool:
        """There is news; whether somebody waited for it."""
        self.heard += 1
        waiting, self._waiting = self._waiting, set()
        self._notifier.let_go(waiting)
        return bool(waiting)

    def give_up(self) -> None:
        """There will be no news: the server stops."""
        self.wake()

    def dismiss(self, refusal: Callable[[], Exception]) -> None:
        """Whoever waits, or will within a request that is under way, is answered with an error."""
        for watching in self._watching:
            watching.refusal = refusal
        for news in self._waiting:
            if not news.done():
                news.set_exception(refusal())


class Watching:
    """What one request has heard of a watch: ``wait`` returns at once for what came since ``reset``."""

    def __init__(self, watch: Watch, rooms: frozenset[int]) -> None:
        self._watch = watch
        self._heard = 0
        #: What to answer with, once the user's waiting is over.
        self.refusal: Callable[[], Exception] | None = None
        self.reset(rooms)

    def reset(self, rooms: frozenset[int]) -> None:
        """Count only what comes from now on, with the rooms the user is in by now."""
        self._watch.follow(rooms)
        self._heard = self._watch.heard

    def note_told(self, device_id: str | None, token: str) -> None:
        """What was read since ``reset`` tells a device everything up to a token."""
        self._watch.note_told(device_id, token, self._heard)

    def has_told(self, device_id: str | None, token: str) -> bool:
        """Whether a device that has this token knows everything: there is nothing to read for it."""
        return self._watch.has_told(device_id, token)

    async def wait(self, seconds: float) -> bool:
        """Wait for news; false when there was none for so long.  Raises what ``dismiss`` was given."""
        has_news = await self._watch.wait(self._heard, seconds)
        if self.refusal is not None:
            raise self.refusal()
        return has_news


class Watches:
    """The watches of all users who sync."""

    def __init__(self, notifier: Notifier, clock: Clock) -> None:
        self._notifier = notifier
        self._clock = clock
        #: How many requests are under way, of users who have any.
        self._busy: dict[str, tuple[Watch, int]] = {}
        #: Since when there are none, of the others, in that order.
        self._idle: OrderedDict[str, tuple[Watch, float]] = OrderedDict()

    @contextlib.contextmanager
    def of(self, user_id: str) -> Iterator[Watch]:
        """A user's watch, for as long as a request lasts."""
        watch = self._begin(user_id)
        try:
            yield watch
        finally:
            self._end(user_id)

    @contextlib.contextmanager
    def watching(self, user_id: str, rooms: frozenset[int]) -> Iterator[Watching]:
        """News for a user who is in these rooms, from now on."""
        with self.of(user_id) as watch, watch.watching(rooms) as watching:
            yield watching

    def _begin(self, user_id: str) -> Watch:
        watch, requests = self._busy.get(user_id, (None, 0))
        if watch is None:
            watch, _ = self._idle.pop(user_id, (None, 0.0))
        watch = watch or Watch(self._notifier, user_id)
        self._busy[user_id] = watch, requests + 1
        return watch

    def _end(self, user_id: str) -> None:
        watch, requests = self._busy.pop(user_id)
        if requests > 1:
            self._busy[user_id] = watch, requests - 1
            return
        now = self._clock.monotonic()
        self._idle[user_id] = watch, now
        while self._idle:
            eldest, (unused, since) = next(iter(self._idle.items()))
            if len(self._idle) <= _REMEMBERED and since >= now - _IDLE_S:
                return
            del self._idle[eldest]
            unused.close()


def _time_is_over(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
