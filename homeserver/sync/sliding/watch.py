"""One user's ear at the notifier, registered once and kept, however many requests come and go.

Registering costs as much as the user has rooms; a request of sliding sync must not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from homeserver.sync.notifier import Notifier


class Watch:
    """Counts news for a user and their rooms, and lets requests wait for more.

    A request takes ``heard``, reads, and then waits for what came since: nothing is missed between.
    """

    def __init__(self, notifier: Notifier, user_id: str) -> None:
        self._notifier = notifier
        self._user_id = user_id
        self._rooms: frozenset[int] = frozenset()
        self._waiting: set[asyncio.Future[None]] = set()
        #: How often there was news.
        self.heard = 0
        notifier.add(self, user_id, ())

    @property
    def is_waited_for(self) -> bool:
        """Whether a request waits."""
        return bool(self._waiting)

    def follow(self, rooms: frozenset[int]) -> None:
        """The user is in these rooms by now."""
        if rooms is not self._rooms:
            self._notifier.remove(self, self._user_id, self._rooms - rooms)
            self._notifier.add(self, self._user_id, rooms - self._rooms)
            self._rooms = rooms

    def close(self) -> None:
        """Listen no more."""
        self._notifier.remove(self, self._user_id, self._rooms)

    async def wait(self, heard: int, seconds: float) -> bool:
        """Wait for news after ``heard``; false when there was none for so long.

        Raises what ``dismiss`` was given.
        """
        if self.heard == heard and seconds > 0 and not self._notifier.closing:
            news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(news)
            try:
                async with asyncio.timeout(seconds):
                    await news
            except TimeoutError:
                pass
            finally:
                self._waiting.discard(news)
        return self.heard != heard

    def wake(self) -> bool:
        """There is news; whether somebody waited for it."""
        self.heard += 1
        waited = bool(self._waiting)
        for news in self._waiting:
            if not news.done():
                news.set_result(None)
        return waited

    def give_up(self) -> None:
        """There will be no news: the server stops."""
        self.wake()

    def dismiss(self, refusal: Callable[[], Exception]) -> None:
        """Whoever waits is answered with an error."""
        for news in self._waiting:
            if not news.done():
                news.set_exception(refusal())
