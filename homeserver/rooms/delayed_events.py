"""Events that are sent later, unless they are cancelled before (MSC4140, "Cancellable delayed events").

What is scheduled is on disk, and an event is sent in the transaction that notes it as sent: it is sent
once, whenever the server stops.  One timer waits for whatever is due next.  Whether somebody may send an
event is asked when its time has come, not before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from weakref import WeakValueDictionary

import orjson
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError, not_found, user_locked
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.event_format import MAX_EVENT_BYTES
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.ids import MAX_ID_BYTES
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.send import Draft
from homeserver.rooms.submit import Submit
from homeserver.storage import delayed_events as storage
from homeserver.storage import moderation
from homeserver.storage.append import Also
from homeserver.storage.database import Database, Transaction
from homeserver.storage.delayed_events import DelayedEvent
from homeserver.tasks import Background
from homeserver.users.requester import Requester

_log = structlog.get_logger()

Action = Literal["cancel", "restart", "send"]

#: Outcomes are remembered for so long, and not more than so many for one user.
KEPT_MS = 7 * 24 * 3600 * 1000
KEPT_OF_USER = 1000

#: So many are looked up at once, and so many may be on their way.
_AT_ONCE = 100
_ON_THEIR_WAY = 1000
#: Some rooms take long, where servers that are silent have to be asked; others do not wait for them.
_PATIENCE_S = 5.0
#: The clock may be set while the timer waits.
_LONGEST_WAIT_S = 30.0
_RETRY_MS = 1000
_OUR_FAULT = {"errcode": "M_UNKNOWN", "error": "Internal server error"}


class DelayTooLong(Exception):
    """More than ``max_delay_ms``."""

    def __init__(self, max_delay_ms: int) -> None:
        super().__init__("The delay is longer than this server allows")
        self.max_delay_ms = max_delay_ms


class TooManyScheduled(Exception):
    """The user has as many events scheduled as may be; the next one is sent in ``next_in_ms``."""

    def __init__(self, next_in_ms: int) -> None:
        super().__init__("The maximum number of delayed events has been reached")
        self.next_in_ms = next_in_ms


class DelayedEvents:
    """Schedules events, sends them when they are due, and remembers for a while what became of them.

    ``check_sending(user_id)`` raises ``M_LIMIT_EXCEEDED`` for users who send too fast.
    With ``max_scheduled`` 0 nothing can be scheduled.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        submit: Submit,
        background: Background,
        max_delay_ms: int,
        max_scheduled: int,
        check_sending: Callable[[str], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._submit = submit
        self._background = background
        self.max_delay_ms = max_delay_ms
        self.max_scheduled = max_scheduled
        self._check_sending = check_sending
        #: By delay id, held while one of them is sent or changed; taken before the lock of a room.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: The state events that are scheduled: whose they are, by delay id, by room, type and state key.
        self._state_keys: defaultdict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
        #: Users of whom a delayed event was sent that is remembered.
        self._senders: set[str] = set()
        #: What is being sent, by delay id; and the last that was begun for each room.
        self._on_their_way: set[str] = set()
        self._last_of_room: dict[str, asyncio.Task[None]] = {}
        self._next_due: int | None = None
        self._sooner = asyncio.Event()

    async def load(self) -> None:
        """Look up what is scheduled, when the server starts."""
        for room_id, type_, state_key, user_id, delay_id in await storage.state_keys(self._db.scan):
            self._state_keys[room_id, type_, state_key][delay_id] = user_id
        self._senders |= await storage.senders(self._db.scan)

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        await self.load()
        while True:
            self._sooner.clear()
            self._next_due = None
            try:
                await self.send_due()
                self._next_due = await storage.next_due(self._db.read)
            except Exception:
                _log.exception("delayed events could not be sent")
                self._next_due = self._clock.now_ms() + _RETRY_MS
            wait = _LONGEST_WAIT_S
            if self._next_due is not None:
                wait_ms = self._next_due - self._clock.now_ms()
                # What is due already is on its way.
                wait = min(wait, (wait_ms if wait_ms > 0 else _RETRY_MS) / 1000)
            try:
                await asyncio.wait_for(self._sooner.wait(), wait)
            except TimeoutError:
                continue

    async def send_due(self) -> None:
        """Send everything whose time has come: what belongs to one room in the order of its times.

        What takes long goes on when this returns.
        """
        while due := await self._newly_due():
            by_room: defaultdict[str, list[DelayedEvent]] = defaultdict(list)
            for one in due:
                by_room[one.room_id].append(one)
            tasks = [self._begin(room_id, of_room) for room_id, of_room in by_room.items()]
            done, _ = await asyncio.wait(tasks, timeout=_PATIENCE_S)
            for task in done:
                task.result()

    async def _newly_due(self) -> list[DelayedEvent]:
        """The first of those that are due and not on their way."""
        if len(self._on_their_way) >= _ON_THEIR_WAY:
            return []
        limit = _AT_ONCE + len(self._on_their_way)
        due = await storage.due(self._db.read, self._clock.now_ms(), limit)
        return [one for one in due if one.delay_id not in self._on_their_way]

    def _begin(self, room_id: str, due: Sequence[DelayedEvent]) -> asyncio.Task[None]:
        """Send them, once those of the room that were begun before have been sent."""
        work = self._send_in_order(due, self._last_of_room.get(room_id))
        self._on_their_way.update(one.delay_id for one in due)
        task = self._last_of_room[room_id] = self._background.start(work, "delayed events of a room")
        task.add_done_callback(partial(self._are_through, room_id, due))
        return task

    def _are_through(self, room_id: str, due: Sequence[DelayedEvent], task: asyncio.Task[None]) -> None:
        self._on_their_way.difference_update(one.delay_id for one in due)
        if self._last_of_room.get(room_id) is task:
            del self._last_of_room[room_id]

    async def schedule(
        self,
        draft: Draft,
        room_id: str,
        delay_ms: int,
        remember: Callable[[str], Also] | None = None,
    ) -> str:
        """Let an event be sent after a delay; the id by which to speak of it, which nobody can guess.

        ``remember`` gives more work for the same transaction.  Raises ``DelayTooLong``,
        ``TooManyScheduled``, and ``M_TOO_LARGE`` for what can never be an event.
        """
        if delay_ms > self.max_delay_ms:
            raise DelayTooLong(self.max_delay_ms)
        content = orjson.dumps(draft.content)
        longest = max(len(text.encode()) for text in (draft.type, draft.state_key or ""))
        if len(content) > MAX_EVENT_BYTES or longest > MAX_ID_BYTES:
            raise MatrixError(413, "M_TOO_LARGE", "The event is too large")
        now, delay_id = self._clock.now_ms(), secrets.token_urlsafe(24)
        one = DelayedEvent(
            delay_id=delay_id,
            user_id=draft.sender,
            room_id=room_id,
            type=draft.type,
            state_key=draft.state_key,
            content=content,
            delay_ms=delay_ms,
            scheduled_at=now,
            due_at=now + delay_ms,
            origin_server_ts=draft.origin_server_ts,
            sticky_ms=draft.sticky_ms,
        )

        async def add(tx: Transaction) -> None:
            count, next_due = await storage.load_of(tx, one.user_id)
            if count >= self.max_scheduled:
                raise TooManyScheduled(max(0, (next_due or now) - now))
            await storage.add(tx, one)
            if remember is not None:
                await remember(delay_id)(tx)

        await self._db.write(add)
        if one.state_key is not None:
            self._state_keys[room_id, one.type, one.state_key][delay_id] = one.user_id
        if self._next_due is None or one.due_at < self._next_due:
            self._sooner.set()
        return delay_id

    async def manage(self, delay_id: str, action: Action, user_id: str | None) -> None:
        """Cancel, restart or send at once what was scheduled; asked for again, nothing more happens.

        ``user_id`` is ``None`` for who shows no more than that they know the id.  ``M_NOT_FOUND`` for
        what that user never scheduled, or has been forgotten; 409 ``M_UNKNOWN`` where the outcome is
        another one already.  What cannot be sent raises why, and stays scheduled.
        """
        async with self._locks.setdefault(delay_id, asyncio.Lock()):
            one = await storage.by_id(self._db.read, delay_id)
            if one is None or user_id not in {None, one.user_id}:
                raise _unknown()
            if not one.is_scheduled:
                _check_outcome(one, action)
            elif action == "restart":
                await self._db.write(partial(storage.restart, delay_id=delay_id, now=self._clock.now_ms()))
            elif action == "cancel":
                await self._finalise(one)
            else:
                await self._send(one)

    async def one(self, user_id: str, delay_id: str) -> DelayedEvent:
        """What a user scheduled; ``M_NOT_FOUND`` for what is not theirs or has been forgotten."""
        found = await storage.by_id(self._db.read, delay_id)
        if found is None or found.user_id != user_id:
            raise _unknown()
        return found

    async def some(self, user_id: str, delay_ids: Sequence[str]) -> list[DelayedEvent]:
        """Those of what a user scheduled that are still known."""
        return await storage.by_ids(self._db.read, user_id, delay_ids)

    async def scheduled(self, user_id: str) -> list[DelayedEvent]:
        """What a user has scheduled, soonest first."""
        return await storage.scheduled(self._db.scan, user_id)

    async def finalised(self, user_id: str, before: tuple[int, str] | None, limit: int) -> list[DelayedEvent]:
        """What became of a user's events, the latest first."""
        return await storage.finalised(self._db.scan, user_id, before, limit)

    async def delay_ids(self, user_id: str, event_ids: list[str]) -> Mapping[str, str]:
        """The delay ids of those of a user's own events that had been scheduled, by event id."""
        if user_id not in self._senders:
            return {}
        return await storage.ids_of_events(self._db.read, user_id, event_ids)

    async def forget_old(self) -> None:
        """Forget outcomes after a week."""
        before = self._clock.now_ms() - KEPT_MS
        await self._db.write(partial(storage.forget_finalised, before=before))

    def new_events(self, news: NewEvents) -> None:
        """Cancel what would undo the state that somebody else has set meanwhile."""
        if not self._state_keys:
            return
        for stored in news.events:
            event = stored.event
            if event.state_key is None:
                continue
            waiting = self._state_keys.get((event.room_id, event.type, event.state_key), {})
            overtaken = [delay_id for delay_id, user_id in waiting.items() if user_id != event.sender]
            if overtaken:
                self._background.start(self._cancel(event.room_id, event.key, overtaken), "overtaken events")

    async def _cancel(self, room_id: str, key: StateKey, delay_ids: Iterable[str]) -> None:
        for delay_id in delay_ids:
            async with self._locks.setdefault(delay_id, asyncio.Lock()):
                one = await storage.by_id(self._db.read, delay_id)
                if one is not None and one.is_scheduled:
                    await self._finalise(one)
                else:  # its sender's account has ended
                    self._forget_key((room_id, *key), delay_id)

    async def _send_in_order(
        self, due: Iterable[DelayedEvent], before: asyncio.Task[None] | None = None
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        for one in due:
            async with self._locks.setdefault(one.delay_id, asyncio.Lock()):
                now = await storage.by_id(self._db.read, one.delay_id)
                if now is None or not now.is_scheduled or now.due_at > self._clock.now_ms():
                    continue
                try:
                    self._check_sending(now.user_id)
                    await self._send(now)
                except (MatrixError, NotAllowed, RemoteError) as error:
                    await self._finalise(now, error=orjson.dumps(_as_reply(error)))
                except Exception:
                    # One that cannot be sent for a fault of ours must not hold up the others for ever.
                    _log.exception("delayed event could not be sent", room_id=now.room_id)
                    await self._finalise(now, error=orjson.dumps(_OUR_FAULT))

    async def _send(self, one: DelayedEvent) -> None:
        """Send one of them now.  Caller holds its lock."""
        draft = Draft(
            one.user_id,
            one.type,
            orjson.loads(one.content),
            state_key=one.state_key,
            origin_server_ts=one.origin_server_ts,
            sticky_ms=one.sticky_ms,
        )

        def also(event: Event) -> Also:
            return self._outcome(one, event_id=event.event_id)

        # Before readers are told of the event: they look for its delay id.
        self._senders.add(one.user_id)
        stored = await self._submit.submit(await self._requester(one.user_id), one.room_id, draft, also)
        # Where nothing had to be stored, or that could not be part of its transaction.
        await self._finalise(one, event_id=stored.id)

    async def _requester(self, user_id: str) -> Requester:
        """The sender as their account stands now; ``M_USER_LOCKED`` for one that is locked."""
        standing = await moderation.standing(self._db.read, user_id)
        if standing is None:
            return Requester(user_id)
        if standing.locked:
            raise user_locked()
        return Requester(user_id, is_admin=standing.is_admin, is_suspended=standing.suspended)

    async def _finalise(
        self, one: DelayedEvent, *, event_id: str | None = None, error: bytes | None = None
    ) -> None:
        await self._db.write(self._outcome(one, event_id=event_id, error=error))
        if one.state_key is not None:
            self._forget_key((one.room_id, one.type, one.state_key), one.delay_id)

    def _forget_key(self, key: tuple[str, str, str], delay_id: str) -> None:
        waiting = self._state_keys.get(key, {})
        waiting.pop(delay_id, None)
        if not waiting:
            self._state_keys.pop(key, None)

    def _outcome(self, one: DelayedEvent, *, event_id: str | None = None, error: bytes | None = None) -> Also:
        return partial(
            storage.finalise,
            delay_id=one.delay_id,
            now=self._clock.now_ms(),
            keep=KEPT_OF_USER,
            event_id=event_id,
            error=error,
        )


def _check_outcome(one: DelayedEvent, action: Action) -> None:
    """Whether what is finalised is just as somebody wishes; raises what ``manage`` does."""
    sent = one.event_id is not None
    if action == "restart" and sent:
        # The proposal does not say; clients begin anew when they are told that there is none any more.
        raise _unknown()
    if action != ("send" if sent else "cancel"):
        became = "sent" if sent else "cancelled"
        raise MatrixError(409, "M_UNKNOWN", f"The delayed event has been {became} already")


def _unknown() -> MatrixError:
    return not_found("There is no such delayed event")


def _as_reply(error: Exception) -> dict[str, Any]:
    """The standard error response for what kept an event from being sent."""
    if isinstance(error, MatrixError):
        return error.body()
    return {"errcode": "M_FORBIDDEN" if isinstance(error, NotAllowed) else "M_UNKNOWN", "error": str(error)}
