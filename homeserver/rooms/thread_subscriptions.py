"""Thread subscriptions: which threads of a room a user wants to hear of (MSC4306).

A user's clients subscribe them to threads they write in, and to those they are mentioned in.
That a client which was away makes a subscription again which the user has ended since is
what the position of the end prevents: a mention is told from an earlier one by its place in
the stream.  What a subscription means for notifications is the push rules' business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from homeserver.errors import MatrixError, not_found
from homeserver.rooms.bundles import is_thread_root
from homeserver.rooms.edus import News
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History
from homeserver.rooms.room import Room
from homeserver.rooms.threads import thread_of
from homeserver.storage import thread_subscriptions as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.thread_subscriptions import Subscription

NOT_IN_THREAD = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"
CONFLICTING_UNSUBSCRIPTION = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"

#: Subscriptions to more threads of one room than these, the newest, do not notify.
_MAX_IN_ROOM = 10_000
_REMEMBERED_ROOMS = 20_000


class Changed(msgspec.Struct, frozen=True, gc=False):
    """Changes to a user's subscriptions, the newest first."""

    #: Each with its room's id.
    subscriptions: Sequence[tuple[str, Subscription]]
    #: Older changes are at or before this position; ``None`` where there are none.
    end: int | None


class ThreadSubscriptions:
    """The subscriptions of local users."""

    def __init__(
        self, *, db: Database, events: EventCache, history: History, positions: NumberSequence, news: News
    ) -> None:
        self._db = db
        self._events = events
        self._history = history
        self._positions = positions
        self._news = news
        self._known: OrderedDict[tuple[str, int], frozenset[str]] = OrderedDict()
        self._reading: dict[tuple[str, int], object] = {}

    async def get(self, user_id: str, room_id: str, root_id: str) -> Subscription:
        """A user's subscription to a thread; ``M_NOT_FOUND`` where they have none, or see no such thread."""
        room = await self._room_of_thread(user_id, room_id, root_id)
        found = await storage.find(self._db.read, user_id, room.nid, root_id)
        if found is None or not found.subscribed:
            raise not_found("You are not subscribed to that thread")
        return found

    async def subscribe(self, user_id: str, room_id: str, root_id: str, cause_id: str | None = None) -> None:
        """Subscribe a user to a thread: automatically, where an event of the thread is the cause.

        ``M_NOT_FOUND`` for a thread that they do not see, ``NOT_IN_THREAD`` for a cause that is
        not in the thread, ``CONFLICTING_UNSUBSCRIPTION`` for one from before they unsubscribed.
        """
        room = await self._room_of_thread(user_id, room_id, root_id)
        cause_pos = None if cause_id is None else await self._cause(user_id, room, root_id, cause_id)
        pos = self._positions.next()

        async def work(tx: Transaction) -> bool:
            before = await storage.find(tx, user_id, room.nid, root_id)
            if not is_change(before, cause_pos):
                return False
            unsubscribed_at = before.unsubscribed_at if before is not None else None
            automatic = cause_pos is not None
            after = Subscription(room.nid, root_id, True, automatic, pos, unsubscribed_at)
            await storage.put(tx, user_id, after)
            return True

        if await self._db.write(work):
            self._tell(user_id, room, pos)

    async def unsubscribe(self, user_id: str, room_id: str, root_id: str) -> None:
        """End a user's subscription to a thread, and refuse those made for what came before.

        Also where there is none.  ``M_NOT_FOUND`` for a thread that they do not see.
        """
        room = await self._room_of_thread(user_id, room_id, root_id)
        pos = self._positions.next()

        async def work(tx: Transaction) -> bool:
            before = await storage.find(tx, user_id, room.nid, root_id)
            is_news = before is None or before.subscribed
            changed_at = pos if before is None or before.subscribed else before.pos
            await storage.put(tx, user_id, Subscription(room.nid, root_id, False, False, changed_at, pos))
            return is_news

        if await self._db.write(work):
            self._tell(user_id, room, pos)

    async def roots(self, user_id: str, room_nid: int) -> frozenset[str]:
        """The threads of a room that a user is subscribed to."""
        key = (user_id, room_nid)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        mark = self._reading[key] = object()
        known = frozenset(await storage.roots_in(self._db.scan, user_id, room_nid, _MAX_IN_ROOM))
        if self._reading.get(key) is mark:  # nothing changed while it was read
            del self._reading[key]
            self._known[key] = known
            if len(self._known) > _REMEMBERED_ROOMS:
                self._known.popitem(last=False)
        return known

    async def changed(self, user_id: str, after: int, upto: int, limit: int) -> Changed:
        """What changed for a user in ``(after, upto]``: the newest ``limit`` changes."""
        rows = await storage.changed(self._db.scan, user_id, after, upto, limit + 1)
        shown = rows[:limit]
        return Changed(shown, shown[-1][1].pos - 1 if len(rows) > limit else None)

    async def _room_of_thread(self, user_id: str, room_id: str, root_id: str) -> Room:
        """The room of a thread that somebody sees.  It may have no replies yet."""
        room, root = await self._history.event(user_id, room_id, root_id)
        if not is_thread_root(root.stored.event):
            raise not_found("There is no such thread")
        return room

    async def _cause(self, user_id: str, room: Room, root_id: str, cause_id: str) -> int:
        """The position of an event of a thread."""
        try:
            _, cause = await self._history.event(user_id, room.room_id, cause_id)
        except MatrixError:
            raise _not_in_thread() from None
        if await thread_of(self._events, cause.stored.event) != root_id:
            raise _not_in_thread()
        return cause.stored.pos or 0

    def _tell(self, user_id: str, room: Room, pos: int) -> None:
        self._known.pop((user_id, room.nid), None)
        self._reading.pop((user_id, room.nid), None)
        self._news.announce(pos, users=(user_id,))


def is_change(before: Subscription | None, cause_pos: int | None) -> bool:
    """Whether there is something to do for who asks to be subscribed, knowing what was ``before``.

    ``cause_pos`` is where in the stream the cause of an automatic subscription is, ``None`` for
    a manual one, which stands above an automatic one.  ``CONFLICTING_UNSUBSCRIPTION`` for a cause
    from before the user unsubscribed ("Server-side automatic subscription ordering").
    """
    if before is None:
        return True
    if before.subscribed:
        return before.automatic and cause_pos is None
    ended = before.unsubscribed_at
    if cause_pos is not None and ended is not None and cause_pos <= ended:
        raise MatrixError(409, CONFLICTING_UNSUBSCRIPTION, "You have unsubscribed since that event")
    return True


def _not_in_thread() -> MatrixError:
    return MatrixError(400, NOT_IN_THREAD, "The event that is to be the cause is not in that thread")
