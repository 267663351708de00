"""Follows the stream of events, and sees to it that pushers are told of what is for them.

A reader like ``/sync``: it is told that something is stored, works out whom of the people
with pushers it may concern, and lets each pusher work for itself.  Rooms of people without
pushers cost one look at a set.  Everything up to the stored position has been pushed,
but for the pushers that are stored as being behind: so nothing is lost by a restart, and
at most the push that was under way is repeated (gateways tell repeated ones by their event id).
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, Protocol

import structlog

from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.push.badge import Badges
from homeserver.push.gateway import PusherRejected, PushFailed
from homeserver.push.line import Line, Work
from homeserver.push.pushers import Pushers
from homeserver.rooms.announcement import NewEvents
from homeserver.storage import pushers as pusher_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.pushers import HTTP, Pusher
from homeserver.sync.notifier import Notifier

_log = structlog.get_logger()

_TICK_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0
#: Somebody who reads moves their receipts again and again: the number of unread events is told after a while.
_BADGE_MS: Final = 3_000
_REMEMBERED_ROOMS: Final = 20_000


class Way(Protocol):
    """How a kind of pusher pushes."""

    async def work(self, line: Line, work: Work, upto: int) -> int | None:
        """Push what waits up to a position; when to look again (ms) if something has to wait.

        Raises ``PushFailed`` or ``RemoteError`` for what is to be tried again, ``PusherRejected``.
        """
        ...


class PushReader:
    """Lets every pusher work.

    ``new_events`` is a listener of the notifier, ``users_changed`` one for users, ``has_read``
    of receipts.  ``ways`` is to be set before ``start``: how each kind of pusher pushes.
    """

    def __init__(
        self, *, db: Database, clock: Clock, notifier: Notifier, pushers: Pushers, badges: Badges
    ) -> None:
        self._db = db
        self._clock = clock
        self._notifier = notifier
        self._pushers = pushers
        self._badges = badges
        self.ways: dict[str, Way] = {}
        self._lines: defaultdict[str, dict[tuple[str, str, str], Line]] = defaultdict(dict)
        #: Rooms and users with news that have not been given to their lines.
        self._rooms: set[int] = set()
        self._users: set[str] = set()
        #: Users whose pushers have changed.
        self._reload: set[str] = set()
        #: Everything up to here has been given to the lines it is for.
        self._position = notifier.position
        self._stored_position = 0
        self._stored_at = clock.monotonic()
        #: The users with pushers in a room.
        self._in_room: OrderedDict[int, frozenset[str]] = OrderedDict()
        #: The room these are being read of, unless somebody came or went meanwhile.
        self._reading: int | None = None
        #: It is not known yet who has pushers.
        self._starting = True
        self._news = asyncio.Event()
        #: Those that have something to do, or whose stored record says so.
        self._active: set[Line] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._distributing = asyncio.Lock()

    async def start(self) -> None:
        """Find out what pushers lack, and begin to push."""
        now = self._notifier.position
        stored = await pusher_storage.position(self._db.scan)
        everyone = await pusher_storage.everyone(self._db.scan)
        for pusher in everyone:
            pos = pusher.pos if pusher.behind or stored is None else max(pusher.pos, stored)
            line = self._lines[pusher.user_id][pusher.key] = Line(pusher, min(pos, now))
            self._active.add(line)
        self._starting = False
        oldest = min((line.pos for line in self._every_line()), default=now)
        if oldest < now:
            for user_id, room_nid in await pusher_storage.rooms_with_news(self._db.scan, oldest):
                for line in self._lines_of(user_id):
                    line.add([room_nid])
            for user_id in await pusher_storage.invited_since(self._db.scan, oldest):
                for line in self._lines_of(user_id):
                    line.add(invites=True)
        self._stored_position = stored or 0
        self._tasks = [
            asyncio.create_task(self._follow(), name="push reader"),
            asyncio.create_task(self._tick_forever(), name="push clock"),
        ]
        self.tick()

    def new_events(self, news: NewEvents) -> None:
        """Events are on disk."""
        if not self._lines and not self._starting:
            return
        if any(user_id in self._lines for user_id in news.users):
            self._in_room.pop(news.room.nid, None)
            if self._reading == news.room.nid:
                self._reading = None
            self._users.update(user_id for user_id in news.users if user_id in self._lines)
        self._rooms.add(news.room.nid)
        for stored in news.events:
            if stored.event.sender in self._lines:
                self._fewer_unread(stored.event.sender, news.room.nid)
        self._news.set()

    def users_changed(self, users: Iterable[str]) -> None:
        """Something of these users' own changed: an invite, their rules, whom they ignore."""
        if not self._lines:
            return
        for user_id in users:
            if user_id in self._lines:
                self._users.add(user_id)
                self._fewer_unread(user_id, None)
        if self._users:
            self._news.set()

    def has_read(self, room_nid: int, user_id: str) -> None:
        """A user's receipt moved."""
        if user_id in self._lines:
            self._fewer_unread(user_id, room_nid)

    def pushers_changed(self, user_id: str) -> None:
        """A user's pushers are not what they were."""
        self._reload.add(user_id)
        self._news.set()

    def tick(self) -> None:
        """Let those work whose time has come, and store how far everybody is; called every second."""
        for line in list(self._active):
            if line.is_idle:
                self._active.discard(line)
            else:
                self._wake(line)
        if self._lines and self._clock.monotonic() >= self._stored_at + _STORE_SECONDS:
            self._store()

    async def close(self) -> None:
        """Give pushes that are on their way a moment, then store how far each pusher is."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = self._workers()
        if workers:
            _, late = await asyncio.wait(workers, timeout=_CLOSE_SECONDS)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._lines:
            await self._store()

    async def idle(self) -> None:
        """Wait until everything has been looked at and nothing is on its way; what failed waits."""
        while self._has_news() or self._distributing.locked() or self._workers():
            if self._has_news():
                await self._distribute()
            elif workers := self._workers():
                await asyncio.wait(workers)
            else:
                await asyncio.sleep(0)

    def _every_line(self) -> Iterable[Line]:
        return (line for lines in self._lines.values() for line in lines.values())

    def _lines_of(self, user_id: str) -> Iterable[Line]:
        return self._lines[user_id].values() if user_id in self._lines else ()

    def _workers(self) -> list[asyncio.Task[None]]:
        return [line.worker for line in self._active if line.worker is not None]

    def _has_news(self) -> bool:
        return bool(self._rooms or self._users or self._reload)

    def _fewer_unread(self, user_id: str, room_nid: int | None) -> None:
        """A user may have fewer unread events than their pushers were told."""
        self._badges.changed(user_id, room_nid)
        due = self._clock.now_ms() + _BADGE_MS
        for line in self._lines_of(user_id):
            if line.pusher.kind == HTTP and line.badge_at is None and (line.told or room_nid is not None):
                line.badge_at = due
                self._active.add(line)

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            try:
                await self._distribute()
            except Exception:
                _log.exception("push reader failed")
                await asyncio.sleep(_TICK_SECONDS)

    async def _distribute(self) -> None:
        """Give what is new to the lines it is for."""
        async with self._distributing:
            self._news.clear()
            given = await self._reload_pushers()
            # Nothing is awaited between these: what is announced later is in the next round.
            position = self._notifier.position
            rooms, self._rooms = self._rooms, set()
            users, self._users = self._users, set()
            try:
                found = {room_nid: await self._users_in(room_nid) for room_nid in rooms}
            except BaseException:
                self._rooms |= rooms
                self._users |= users
                self._active.update(given)
                raise
            # Nor between these: a line that works up to the position has all it needs for that.
            for user_id in users:
                for line in self._lines_of(user_id):
                    line.add(invites=True)
                    given.append(line)
            for room_nid, users_there in found.items():
                for user_id in users_there:
                    self._badges.changed(user_id, room_nid)
                    for line in self._lines_of(user_id):
                        line.add([room_nid])
                        given.append(line)
            self._position = max(self._position, position)
            self._active.update(given)
            for line in given:
                self._wake(line)

    async def _users_in(self, room_nid: int) -> frozenset[str]:
        known = self._in_room.get(room_nid)
        if known is None:
            self._reading = room_nid
            known = frozenset(await pusher_storage.users_in(self._db.scan, room_nid))
            if self._reading == room_nid:
                self._in_room[room_nid] = known
            if len(self._in_room) > _REMEMBERED_ROOMS:
                self._in_room.popitem(last=False)
        else:
            self._in_room.move_to_end(room_nid)
        return known

    async def _reload_pushers(self) -> list[Line]:
        """Read the pushers of those whose pushers have changed; those that may have something to do."""
        given: list[Line] = []
        while self._reload:
            user_id = self._reload.pop()
            # From here on the user is told of what happens: nothing falls between the reads.
            self._lines.setdefault(user_id, {})
            try:
                stored = await pusher_storage.of_user(self._db.read, user_id)
                rooms = await self._rooms_of(user_id) if stored else {}
            except BaseException:
                self._reload.add(user_id)
                self._active.update(given)
                raise
            given += self._replace_lines(user_id, stored, rooms)
        return given

    def _replace_lines(
        self, user_id: str, stored: Iterable[Pusher], rooms: Mapping[int, int]
    ) -> Iterable[Line]:
        """Have lines for the pushers a user has by now; ``rooms``: the user's, with their last positions."""
        before = self._lines.pop(user_id, {})
        now: dict[tuple[str, str, str], Line] = {}
        for pusher in stored:
            old = before.get(pusher.key)
            if old is not None and _is_same(old.pusher, pusher):
                now[pusher.key] = old
                continue
            line = now[pusher.key] = Line(pusher, old.pos if old is not None else pusher.pos)
            line.add((nid for nid, last in rooms.items() if last > line.pos), invites=True)
        for key, line in before.items():
            line.gone = now.get(key) is not line
        if not now:
            self._badges.forget(user_id)
            return ()
        self._lines[user_id] = now
        if not before:
            for nid in rooms:
                self._in_room.pop(nid, None)
        return now.values()

    async def _rooms_of(self, user_id: str) -> dict[int, int]:
        """The rooms a user is in, with the positions of their newest events."""
        memberships = await room_storage.local_memberships_of(self._db.read, user_id)
        joined = [each.room_nid for each in memberships if each.membership == "join"]
        return await room_storage.last_positions(self._db.scan, joined)

    def _wake(self, line: Line) -> None:
        if line.worker is None and not self._closing and line.is_due(self._clock.now_ms()):
            line.worker = asyncio.create_task(self._work(line), name="pusher at work")

    async def _work(self, line: Line) -> None:
        """Push until nothing waits, or has to wait."""
        try:
            while not self._closing and line.is_due(self._clock.now_ms()):
                await self._work_once(line)
        except PusherRejected as error:
            _log.info("pusher rejected", user_id=line.pusher.user_id, gateway=str(error))
            line.gone = True
            await self._pushers.remove(*line.pusher.key)
        except Exception:
            _log.exception("pushing failed", user_id=line.pusher.user_id)
        finally:
            line.worker = None

    async def _work_once(self, line: Line) -> None:
        upto = self._position
        work = line.take(self._clock.now_ms())
        again_at: int | None = None
        try:
            way = self.ways.get(line.pusher.kind)
            again_at = await way.work(line, work, upto) if way is not None else None
        except (PushFailed, RemoteError) as error:
            again_at = await self._failed(line, work, upto, str(error))
        except PusherRejected:
            raise
        except BaseException:
            line.put_back(work, line.failed(self._clock.now_ms(), random.random()))
            raise
        else:
            if again_at is not None:
                line.put_back(work, again_at)
        if again_at is None:
            line.pos = max(line.pos, upto)
        self._active.add(line)

    async def _failed(self, line: Line, work: Work, upto: int, why: str) -> int | None:
        """A push did not arrive: when it is to be tried again, if it is."""
        now_ms = self._clock.now_ms()
        again_at = line.failed(now_ms, random.random())
        if line.gives_up(now_ms):
            _log.warning("pushes given up", user_id=line.pusher.user_id, reason=why)
            line.again_at = again_at
            await self.advance(line, upto)
            return None
        _log.info("push failed", user_id=line.pusher.user_id, reason=why, again_in_ms=again_at - now_ms)
        line.put_back(work, again_at)
        if line.failures == 1:
            await self.advance(line, line.pos)
        return again_at

    async def advance(self, line: Line, pos: int) -> None:
        """Everything up to a position has been pushed: store it."""
        line.pos = max(line.pos, pos)
        await self._db.write(
            partial(
                pusher_storage.advance, pusher=line.pusher, pos=line.pos, failing_since=line.failing_since
            )
        )

    def _store(self) -> asyncio.Future[None]:
        """Store the position of all pushers, and which of them are behind."""
        self._stored_at = self._clock.monotonic()
        position = self._position
        moved: list[tuple[Pusher, int, bool]] = []
        for line in self._active:
            if line.gone:  # it has no record any more, or that of the line in its place
                continue
            behind = line.is_waiting or line.worker is not None
            if behind or line.stored_behind:
                moved.append((line.pusher, line.pos if behind else position, behind))
                line.stored_behind = behind
        if position == self._stored_position and not moved:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        self._stored_position = position
        return self._db.write(partial(pusher_storage.store_position, pos=position, moved=moved))

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tick()


def _is_same(one: Pusher, other: Pusher) -> bool:
    """Whether nothing has been set anew but how far the pusher is."""
    return (one.kind, one.device_id, one.data, one.pushkey_ts, one.lang) == (
        other.kind,
        other.device_id,
        other.data,
        other.pushkey_ts,
        other.lang,
    )
