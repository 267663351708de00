"""Unread counts: how many events since a user's receipt their push rules notify them of.

Nothing of this is stored.  Counts are worked out from the events after the receipt
when they are first asked for, and brought up to date from there, so they are the same
after a restart.  Specification: client-server API, "Receiving notifications".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from homeserver.protocol.event_format import client_event
from homeserver.protocol.push_rules import Notice, PushEvent, Ruleset, default_ruleset, evaluate
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.threads import MAIN, thread_of
from homeserver.rooms.visibility import Visibility
from homeserver.storage import events as event_storage
from homeserver.storage import receipts as receipt_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.receipts import UNTHREADED
from homeserver.sync.notifier import Notifier

#: No more than this many of the newest events are looked at, and no higher counts reported.
MAX_UNREAD = 500

_REMEMBERED_ROOMS = 50_000
_REMEMBERED_USERS = 5000
_REMEMBERED_EVENTS = 1000

#: No user id: nobody's rules but those everybody starts with.
_ANYBODY = ""
_ANYBODYS_RULES = default_ruleset(_ANYBODY)


class Rulesets(Protocol):
    """Knows users' push rules; ``users/push_rules.py`` fulfils it."""

    async def ruleset(self, user_id: str) -> Ruleset:
        """A user's whole ruleset, predefined rules included."""
        ...


class Count(msgspec.Struct, frozen=True, gc=False):
    """Unread events that notify, and those of them that highlight."""

    notifications: int = 0
    highlights: int = 0


class UnreadCounts(msgspec.Struct, frozen=True, gc=False):
    """A user's counts in one room."""

    main: Count
    #: By the id of the thread's root.
    threads: dict[str, Count]

    @property
    def total(self) -> Count:
        """Threads and the main timeline together, for clients that know no threads."""
        counts = [self.main, *self.threads.values()]
        return Count(sum(one.notifications for one in counts), sum(one.highlights for one in counts))


class _Notice(msgspec.Struct, frozen=True, gc=False):
    pos: int
    thread: str
    highlight: bool


class _Known(msgspec.Struct, gc=False):
    """What is known of a user in a room at a position."""

    upto: int
    #: The position each thread is read up to.
    read: dict[str, int]
    #: Unread notices, oldest first, and what they come to.
    notices: list[_Notice]
    counts: UnreadCounts
    #: Whose messages are not among them.
    ignored: frozenset[str]


class _Rules(msgspec.Struct, frozen=True, gc=False):
    ruleset: Ruleset
    #: Whether the user has changed nothing.
    predefined: bool


class Unread:
    """Counts what users have not read."""

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        states: StateStore,
        visibility: Visibility,
        receipts: NewestPositions,
        rulesets: Rulesets,
        ignored: IgnoredUsers,
        notifier: Notifier,
    ) -> None:
        self._db = db
        self._events = events
        self._states = states
        self._visibility = visibility
        self._receipts = receipts
        self._rulesets = rulesets
        self._ignored = ignored
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()
        self._rules: OrderedDict[str, _Rules] = OrderedDict()
        self._events_judged: OrderedDict[int, _Judged] = OrderedDict()
        notifier.user_listeners.append(self._forget_rules)

    async def counts(self, room: Room, user_id: str, now: int) -> UnreadCounts:
        """A joined user's unread counts at an announced position."""
        key = (room.nid, user_id)
        known, ignored = self._known.get(key), await self._ignored.by(user_id)
        if known is None or known.upto > now or known.ignored != ignored:
            known = await self._from_the_receipt(room, user_id, now, ignored)
        elif self._receipts.has_changed(room.nid, known.upto):
            read = await self._read_up_to(room, user_id)
            if read != known.read:
                known = _known(known.upto, read, known.notices, ignored)
        fresh = await self._notices(room, user_id, known.upto, now, ignored)
        if fresh:
            known = _known(now, known.read, (*known.notices, *fresh), ignored)
        known.upto = now
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED_ROOMS:
            self._known.popitem(last=False)
        return known.counts

    async def _from_the_receipt(self, room: Room, user_id: str, now: int, ignored: frozenset[str]) -> _Known:
        """Nothing is known yet: counting begins at the receipt, or where the user joined."""
        read = await self._read_up_to(room, user_id)
        start = read.get(UNTHREADED)
        if start is None:
            start = await self._visibility.joined_since(room, user_id, now)
        return _known(now if start is None else start, read, [], ignored)

    async def _read_up_to(self, room: Room, user_id: str) -> dict[str, int]:
        """The position each thread is read up to; ``UNTHREADED`` stands for all of them."""
        read: dict[str, int] = {}
        for receipt in await receipt_storage.of_user(self._db.read, room.nid, user_id):
            read[receipt.thread_id] = max(receipt.event_pos, read.get(receipt.thread_id, 0))
        return read

    async def _notices(
        self, room: Room, user_id: str, after: int, upto: int, ignored: frozenset[str]
    ) -> list[_Notice]:
        """Events in ``(after, upto]`` that notify the user, oldest first."""
        notices = []
        for stored in await self._newest(room, after, upto):
            if stored.event.sender == user_id:
                continue
            if stored.event.sender in ignored and not stored.event.is_state:
                continue
            notice = await self._notice(room, user_id, stored)
            if notice.notify:
                thread = await thread_of(self._events, stored.event)
                notices.append(_Notice(stored.pos or 0, thread, notice.highlight))
        return notices

    async def _notice(self, room: Room, user_id: str, stored: StoredEvent) -> Notice:
        rules = await self._rules_of(user_id)
        judged = self._judged(room, stored)
        if rules.predefined and not judged.concerns(user_id):
            return judged.for_anybody
        member = await self._states.member(room, user_id)
        display_name = member.event.content.get("displayname") if member else None
        return evaluate(
            rules.ruleset,
            judged.push_event,
            user_id=user_id,
            display_name=display_name if isinstance(display_name, str) else None,
        )

    async def _newest(self, room: Room, after: int, upto: int) -> Sequence[StoredEvent]:
        """The newest ``MAX_UNREAD`` events in ``(after, upto]``, oldest first."""
        if after >= upto:
            return []
        if after >= room.recent_after:
            return [stored for stored in reversed(room.recent_between(after, upto)) if stored.shown]
        rows = await event_storage.timeline_backward(self._db.scan, room.nid, upto, MAX_UNREAD)
        return [stored for stored in reversed(rows) if (stored.pos or 0) > after and stored.shown]

    def _judged(self, room: Room, stored: StoredEvent) -> _Judged:
        """The event as push rules look at it, made once for all users."""
        judged = self._events_judged.get(stored.nid)
        if judged is None:
            levels = room.power_levels
            push_event = PushEvent(
                client_event(stored.event),
                member_count=room.joined_members,
                sender_level=levels.of_user(stored.event.sender),
                notification_level=levels.notifications,
            )
            judged = self._events_judged[stored.nid] = _Judged(push_event)
            if len(self._events_judged) > _REMEMBERED_EVENTS:
                self._events_judged.popitem(last=False)
        return judged

    async def _rules_of(self, user_id: str) -> _Rules:
        rules = self._rules.get(user_id)
        if rules is None:
            ruleset = await self._rulesets.ruleset(user_id)
            rules = self._rules[user_id] = _Rules(ruleset, ruleset == default_ruleset(user_id))
            if len(self._rules) > _REMEMBERED_USERS:
                self._rules.popitem(last=False)
        return rules

    def _forget_rules(self, users: Iterable[str]) -> None:
        for user_id in users:
            self._rules.pop(user_id, None)


class _Judged:
    """An event, and what the predefined rules say of it to people it does not name."""

    def __init__(self, push_event: PushEvent) -> None:
        self.push_event = push_event
        self.for_anybody = evaluate(_ANYBODYS_RULES, push_event, user_id=_ANYBODY, display_name=None)
        mentions = push_event.event["content"].get("m.mentions")
        named = mentions.get("user_ids") if isinstance(mentions, dict) else None
        self._named = [push_event.event.get("state_key"), *(named if isinstance(named, list) else ())]

    def concerns(self, user_id: str) -> bool:
        """Whether the predefined rules may say something else to this user."""
        return user_id in self._named


def _known(upto: int, read: dict[str, int], notices: Iterable[_Notice], ignored: frozenset[str]) -> _Known:
    kept = [
        notice for notice in notices if notice.pos > max(read.get(UNTHREADED, 0), read.get(notice.thread, 0))
    ][-MAX_UNREAD:]
    return _Known(upto, read, kept, _count(kept), ignored)


def _count(notices: Iterable[_Notice]) -> UnreadCounts:
    counts: dict[str, Count] = {}
    for notice in notices:
        before = counts.get(notice.thread, Count())
        counts[notice.thread] = Count(before.notifications + 1, before.highlights + notice.highlight)
    return UnreadCounts(counts.pop(MAIN, Count()), counts)


def as_json(count: Count) -> Mapping[str, int]:
    """A count as responses have it."""
    return {"notification_count": count.notifications, "highlight_count": count.highlights}
