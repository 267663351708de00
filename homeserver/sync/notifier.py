"""Wakes whoever waits for something new: readers register, read, then wait.

Holds one fact, ``position``: everything at or before it is on disk.  Readers ask
for what is after their own position up to this one, so that they never see
what is not stored and never miss what is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar

from homeserver.rooms.announcement import NewEvents

K = TypeVar("K")

#: Turns of the event loop from an announcement to the reply to who caused it: two, and some more to be safe.
_TURNS_TO_ANSWER = 5
#: Requests that go on in one turn of the event loop: what they do then must not keep it for long.
_GO_ON_AT_ONCE = 10


class Listener(Protocol):
    """Whoever is told that there is news; returns at once."""

    def wake(self) -> bool:
        """There is news; whether somebody slept."""
        ...

    def give_up(self) -> None:
        """There will be no news: the server stops."""
        ...

    def dismiss(self, refusal: Callable[[], Exception]) -> None:
        """There will be no news for this user."""
        ...


class Waiter:
    """Somebody's wish to know of news for one user and the rooms they are in.

    Use as a context manager; ``wait`` returns at once for news that came since it was made
    or since ``reset``.
    """

    def __init__(self, notifier: Notifier, user_id: str, rooms: Iterable[int]) -> None:
        self._notifier = notifier
        self._user_id = user_id
        self._rooms = frozenset(rooms)
        self._news: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._refusal: Callable[[], Exception] | None = None

    def __enter__(self) -> Waiter:
        self._notifier.add(self, self._user_id, self._rooms)
        return self

    def __exit__(self, *_: object) -> None:
        self._notifier.remove(self, self._user_id, self._rooms)
        self._news.cancel()

    def reset(self, rooms: Iterable[int]) -> None:
        """Register for what comes from now on, with the rooms the user is in by now."""
        self._notifier.remove(self, self._user_id, self._rooms)
        self._rooms = frozenset(rooms)
        if self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        self._notifier.add(self, self._user_id, self._rooms)

    def wake(self) -> bool:
        """There is news; whether that was not known yet."""
        if self._news.done():
            return False
        self._news.set_result(True)
        return True

    async def wait(self, seconds: float) -> bool:
        """Wait for news; false when there was none for so long.  Raises what ``dismiss`` was given."""
        if not self._news.done() and seconds > 0 and not self._notifier.closing:
            timer = asyncio.get_running_loop().call_later(seconds, self._expire, self._news)
            try:
                await self._news
            finally:
                timer.cancel()
        if self._refusal is not None:
            raise self._refusal()
        has_news = self._news.done() and self._news.result()
        if not has_news and self._news.done():
            self._news = asyncio.get_running_loop().create_future()  # it is still registered, and may wait on
        return has_news

    def give_up(self) -> None:
        """There will be no news: the server stops."""
        self._expire(self._news)

    def dismiss(self, refusal: Callable[[], Exception]) -> None:
        """There will be no news for this user."""
        self._refusal = refusal
        self._expire(self._news)

    @staticmethod
    def _expire(news: asyncio.Future[bool]) -> None:
        if not news.done():
            news.set_result(False)


class Senders:
    """Whoever sent what has just been announced: they are answered first.

    COMPAT: matrix-js-sdk takes a message in a thread for lost that comes in a sync before
    the reply to its own request.
    """

    def __init__(self) -> None:
        #: The newest announcement's, while its sender may not have been answered.
        self._answered: asyncio.Future[None] | None = None

    def announced(self) -> None:
        """Events are announced, and whoever sent them is about to be answered."""
        loop = asyncio.get_running_loop()
        self._answered = loop.create_future()
        loop.call_soon(self._turn, self._answered, _TURNS_TO_ANSWER)

    async def answered(self) -> None:
        """Wait until everybody is who sent what is announced by now: as many as wait, they wait for one."""
        if self._answered is not None:
            await asyncio.shield(self._answered)

    def _turn(self, answered: asyncio.Future[None], left: int) -> None:
        if left > 1:
            asyncio.get_running_loop().call_soon(self._turn, answered, left - 1)
            return
        answered.set_result(None)
        if self._answered is answered:
            self._answered = None


class Notifier:
    """Knows the announced position, and who waits for what."""

    def __init__(self, position: int) -> None:
        #: Everything at or before this stream position is on disk.
        self.position = position
        #: Called for new room events, after the waiters; must return at once.
        self.listeners: list[Callable[[NewEvents], None]] = []
        #: The same, where state is among them: messages are many more, and cost nothing here.
        self.state_listeners: list[Callable[[NewEvents], None]] = []
        #: Called with users who may see something new of their own, before the waiters are woken.
        self.user_listeners: list[Callable[[Iterable[str]], None]] = []
        #: The same for users whose account data changed.
        self.account_data_listeners: list[Callable[[Iterable[str]], None]] = []
        #: Called with a room and the users whose memberships of it changed, before the waiters are woken.
        self.membership_listeners: list[Callable[[int, Iterable[str]], None]] = []
        #: Called whenever there is news of any kind for anybody; must return at once.
        self.news_listeners: list[Callable[[], None]] = []
        #: Those who sent what was announced last, who are answered before others are told.
        self.senders = Senders()
        #: Nobody is kept waiting any more.
        self.closing = False
        self._by_user: dict[str, set[Listener]] = {}
        self._by_room: dict[int, set[Listener]] = {}
        #: Requests that there is news for, in the order they are let go.
        self._going_on: deque[asyncio.Future[None]] = deque()

    def announce_events(self, news: NewEvents) -> None:
        """Room events are on disk: the write path's ``Announce``."""
        self._tell_of_memberships(news.room.nid, news.users)
        self.senders.announced()
        self.announce(news.pos, rooms=(news.room.nid,), users=news.users)
        for listener in self.listeners:
            listener(news)
        if any(stored.event.state_key is not None for stored in news.events):
            for listener in self.state_listeners:
                listener(news)

    def announce_memberships(self, pos: int, *, room_nid: int, users: Iterable[str]) -> None:
        """What these users have to do with a room changed, which is on disk and which no event says."""
        users = tuple(users)
        self._tell_of_memberships(room_nid, users)
        self.announce(pos, users=users)

    def announce_account_data(self, pos: int, user_id: str) -> None:
        """A user's account data changed, which is on disk."""
        for listener in self.account_data_listeners:
            listener((user_id,))
        self.announce(pos, users=(user_id,))

    def _tell_of_memberships(self, room_nid: int, users: Collection[str]) -> None:
        if users:
            for listener in self.membership_listeners:
                listener(room_nid, users)

    def announce(self, pos: int, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> None:
        """Something at ``pos`` is on disk that these users, and the people in these rooms, may see."""
        self.position = max(self.position, pos)
        users = tuple(users)
        if users:
            for listener in self.user_listeners:
                listener(users)
        self.wake(rooms=rooms, users=users)

    def wake(self, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> int:
        """Wake waiters for news that have no stream position (typing, presence); how many slept."""
        waiting = [found for room in rooms if (found := self._by_room.get(room))]
        waiting += [found for user in users if (found := self._by_user.get(user))]
        woken = sum([listener.wake() for listener in set[Listener]().union(*waiting)]) if waiting else 0
        for listener in self.news_listeners:
            listener()
        return woken

    def let_go(self, waiting: Iterable[asyncio.Future[None]]) -> None:
        """Let requests go on that waited, a few at a time: the first are answered before the last look.

        They begin when whoever sent what is announced has been answered.
        """
        is_under_way = bool(self._going_on)
        self._going_on.extend(waiting)
        if self._going_on and not is_under_way:
            asyncio.get_running_loop().call_soon(self._let_some_go, _TURNS_TO_ANSWER)

    def _let_some_go(self, turns: int) -> None:
        if turns <= 0:
            for _ in range(min(len(self._going_on), _GO_ON_AT_ONCE)):
                waiting = self._going_on.popleft()
                if not waiting.done():  # its time may be over meanwhile
                    waiting.set_result(None)
        if self._going_on:
            asyncio.get_running_loop().call_soon(self._let_some_go, turns - 1)

    def wake_user(self, user_id: str) -> None:
        """Let whoever waits as this user look again, for what is no news: what they may do, or have left."""
        self.wake(users=(user_id,))

    def dismiss(self, user_id: str, refusal: Callable[[], Exception]) -> None:
        """Let nobody wait on as this user: each is answered with an error of its own."""
        for waiter in self._by_user.get(user_id, ()):
            waiter.dismiss(refusal)

    def close(self) -> None:
        """Let everybody who waits go, with what there is."""
        self.closing = True
        for waiters in list(self._by_user.values()):
            for waiter in waiters:
                waiter.give_up()

    def waiter(self, user_id: str, rooms: Iterable[int]) -> Waiter:
        """A waiter for a user who is in these rooms; nothing is registered until it is entered."""
        return Waiter(self, user_id, rooms)

    def add(self, waiter: Listener, user_id: str, rooms: Iterable[int]) -> None:
        """Register a waiter."""
        self._by_user.setdefault(user_id, set()).add(waiter)
        for room in rooms:
            self._by_room.setdefault(room, set()).add(waiter)

    def remove(self, waiter: Listener, user_id: str, rooms: Iterable[int]) -> None:
        """Take a waiter out again."""
        _discard(self._by_user, user_id, waiter)
        for room in rooms:
            _discard(self._by_room, room, waiter)


def _discard(waiters: dict[K, set[Listener]], key: K, waiter: Listener) -> None:
    waiting = waiters.get(key)
    if waiting is not None:
        waiting.discard(waiter)
        if not waiting:
            del waiters[key]
