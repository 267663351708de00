"""The users of sliding sync: each one's rooms and ear at the notifier, kept between requests."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from homeserver.clock import Clock
from homeserver.rooms.announcement import NewEvents
from homeserver.sync.notifier import Notifier
from homeserver.sync.sliding.user_rooms import Sources, UserRoomList
from homeserver.sync.watch import Watch, Watches

#: Of users none of whose requests is under way; what is dropped is made anew when they come again.
_REMEMBERED = 2000
_IDLE_S = 3600.0


class Listened(msgspec.Struct, frozen=True):
    """What a user's requests share."""

    rooms: UserRoomList
    watch: Watch


class _Kept(msgspec.Struct):
    """What is kept for a user."""

    rooms: UserRoomList
    #: Requests under way.
    requests: int = 0
    used: float = 0.0


class Listeners:
    """Keeps what users' requests share."""

    def __init__(self, sources: Sources, watches: Watches, notifier: Notifier, clock: Clock) -> None:
        self._sources = sources
        self._watches = watches
        self._clock = clock
        self._known: OrderedDict[str, _Kept] = OrderedDict()
        notifier.listeners.append(self._note)
        notifier.account_data_listeners.append(self._look_again)

    @contextlib.contextmanager
    def listening(self, user_id: str) -> Iterator[Listened]:
        """What is kept for a user, for as long as a request lasts."""
        known = self._known.get(user_id)
        if known is None:
            known = self._known[user_id] = _Kept(UserRoomList(self._sources, user_id))
        self._known.move_to_end(user_id)
        known.requests += 1
        try:
            with self._watches.of(user_id) as watch:
                yield Listened(known.rooms, watch)
        finally:
            known.requests -= 1
            known.used = self._clock.monotonic()
            self._let_go()

    def _let_go(self) -> None:
        eldest = self._clock.monotonic() - _IDLE_S
        while self._known:
            user_id, known = next(iter(self._known.items()))
            if known.requests or (known.used >= eldest and len(self._known) <= _REMEMBERED):
                return
            del self._known[user_id]

    def _note(self, news: NewEvents) -> None:
        self._sources.newest.note(news.room.nid, news.pos)

    def _look_again(self, users: Iterable[str]) -> None:
        for user_id in users:
            known = self._known.get(user_id)
            if known is not None:
                known.rooms.own_news = True
