"""Which events stick now (MSC4354), in memory: few rooms have any, and none for longer than an hour.

Holds no more than where they are; the events themselves are with all others.  Rooms without sticky events
cost a look into a dict, and events without the key a look for it in their bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial

from homeserver.clock import Clock
from homeserver.protocol.ids import server_of
from homeserver.protocol.sticky import sticks_until, sticky_ms
from homeserver.storage import sticky_events as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.sticky_events import Sticky

#: Of one server in one room: more are events like others.  Without a bound a server could make clients
#: fetch whatever it sends.
MAX_OF_SERVER = 1000
#: Of those, the soft-failed ones: with each change of the room's state all of them are judged anew.
MAX_SOFT_FAILED = 100


class StickyEvents:
    """The events that stick.  ``load`` before anything else."""

    def __init__(self, db: Database, clock: Clock, server_name: str) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        #: By room and event number.
        self._rooms: dict[int, dict[int, Sticky]] = {}
        self._of_server: Counter[tuple[int, str]] = Counter()
        #: The newest position of any of them.
        self.newest = 0

    async def load(self) -> None:
        """Look up what stuck when the server stopped."""
        self.note(await storage.unexpired(self._db.scan, self._clock.now_ms()))

    def judge(self, stored: StoredEvent) -> Sticky | None:
        """An accepted event as one that sticks; ``None`` for nearly all."""
        duration = sticky_ms(stored.event)
        if duration is None or stored.rejected:
            return None
        now, sender = self._clock.now_ms(), stored.event.sender
        expires_at = sticks_until(stored.event, duration, now)
        if expires_at <= now or self._has_enough(stored.room_nid, server_of(sender), stored.hidden):
            return None
        pos = None if stored.hidden else stored.pos
        return Sticky(stored.nid, stored.room_nid, sender, pos, expires_at)

    def note(self, sticky: Iterable[Sticky]) -> None:
        """They are on disk, with positions after all that were noted before."""
        for one in sticky:
            room = self._rooms.setdefault(one.room_nid, {})
            if room.pop(one.event_nid, None) is None:
                self._of_server[one.room_nid, server_of(one.sender)] += 1
            room[one.event_nid] = one
            self.newest = max(self.newest, one.pos or 0)

    def is_known(self, stored: StoredEvent) -> bool:
        """Whether an event is among them."""
        return stored.nid in self._rooms.get(stored.room_nid, {})

    def between(self, rooms: Collection[int], after: int, upto: int, limit: int) -> list[Sticky]:
        """The first of those that clients are told of in ``(after, upto]``, in that order."""
        if self.newest <= after:
            return []
        few, many = sorted((self._rooms, rooms), key=len)
        found = [
            one
            for room_nid in few
            if room_nid in many
            for one in self._of_room(room_nid)
            if one.pos is not None and after < one.pos <= upto
        ]
        return sorted(found, key=lambda one: one.pos or 0)[:limit]

    def pending(self, room_nid: int) -> list[Sticky]:
        """The soft-failed ones of a room."""
        return [one for one in self._of_room(room_nid) if one.pos is None]

    def own(self, room_nid: int) -> list[Sticky]:
        """Those of a room that this server has to hand to others."""
        return [
            one
            for one in self._of_room(room_nid)
            if one.pos is not None and server_of(one.sender) == self._server_name
        ]

    def rooms_with_own(self) -> list[int]:
        """The rooms that have any of those."""
        return [room_nid for room_nid in self._rooms if self.own(room_nid)]

    def ttl_ms(self, stored: StoredEvent) -> int | None:
        """How long an event is still to stick; ``None`` for one that does not."""
        duration = sticky_ms(stored.event)
        if duration is None:
            return None
        known = self._rooms.get(stored.room_nid, {}).get(stored.nid)
        now = self._clock.now_ms()
        ends_at = known.expires_at if known else sticks_until(stored.event, duration, now)
        return ends_at - now if ends_at > now else None

    async def forget_expired(self) -> None:
        """Forget those that stick no more."""
        now = self._clock.now_ms()
        expired = [one for room in self._rooms.values() for one in room.values() if one.expires_at <= now]
        for one in expired:
            self._forget(one)
        if expired:
            await self._db.write(partial(storage.remove_expired, now=now))

    def _forget(self, one: Sticky) -> None:
        room, of_server = self._rooms[one.room_nid], (one.room_nid, server_of(one.sender))
        del room[one.event_nid]
        self._of_server[of_server] -= 1
        if not self._of_server[of_server]:
            del self._of_server[of_server]
        if not room:
            del self._rooms[one.room_nid]

    def _has_enough(self, room_nid: int, server: str, soft_failed: bool) -> bool:
        """Whether no more of a server's events may stick in a room."""
        count = self._of_server[room_nid, server]
        if soft_failed and MAX_SOFT_FAILED <= count < MAX_OF_SERVER:
            pending = sum(server_of(one.sender) == server for one in self.pending(room_nid))
            return pending >= MAX_SOFT_FAILED
        return count >= MAX_OF_SERVER

    def _of_room(self, room_nid: int) -> list[Sticky]:
        sticking = self._rooms.get(room_nid)
        if sticking is None:
            return []
        now = self._clock.now_ms()
        return [one for one in sticking.values() if one.expires_at > now]
