"""Unread counts: which events since a user's receipts their push rules notify them of.

Nothing of this is stored.  Counts are worked out from the events after the receipt
when they are first asked for, and brought up to date from there; whatever cannot be brought
up to date (other rules, another stay in the room) is worked out anew.  So they are always
what a count from the beginning would give, and the same after a restart.
Specification: client-server API, "Receiving notifications" and "Marking notifications as read".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.threads import MAIN
from homeserver.rooms.visibility import Visibility
from homeserver.storage import events as event_storage
from homeserver.storage import receipts as receipt_storage
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.storage.receipts import UNTHREADED
from homeserver.sync.notices import Notices, Notified, Reader
from homeserver.sync.rulesets import KnownRules, Rules

#: No higher counts are reported.
MAX_UNREAD = 500

#: No more events than these, the newest ones, are looked at for them.
_MAX_LOOKED_AT = 5_000
_BATCH = 500
_REMEMBERED_ROOMS = 50_000

_REDACTION = "m.room.redaction"


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


NOTHING_UNREAD = UnreadCounts(Count(), {})


class UnreadNotice(msgspec.Struct, frozen=True, gc=False):
    """An unread event that notifies."""

    pos: int
    nid: int
    thread: str
    highlight: bool


class ReadUpTo(msgspec.Struct, frozen=True, gc=False):
    """The positions up to which somebody has read a room, by thread.

    Sending a message reads the thread it is in.
    """

    #: ``UNTHREADED`` stands for all of them.
    receipts: dict[str, int]
    own: dict[str, int]

    def is_read(self, pos: int, thread: str) -> bool:
        """Whether an event of a thread has been read."""
        by_receipt = max(self.receipts.get(UNTHREADED, pos - 1), self.receipts.get(thread, pos - 1))
        return pos <= max(by_receipt, self.own.get(thread, pos - 1))


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What is known of a user in a room at a position."""

    upto: int
    reader: Reader
    #: The number of their member event.
    member_nid: int
    read: ReadUpTo
    #: Unread notices, oldest first, and what they come to.
    notices: tuple[UnreadNotice, ...]
    counts: UnreadCounts
    #: There are, or were, older ones.
    is_cut: bool = False
    #: Some are in their threads by way of other events.
    has_indirect: bool = False


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
        rules: KnownRules,
        ignored: IgnoredUsers,
        notices: Notices,
        threads: ThreadSubscriptions,
    ) -> None:
        self._db = db
        self._events = events
        self._states = states
        self._visibility = visibility
        self._receipts = receipts
        self._rules = rules
        self._ignored = ignored
        self._notices = notices
        self._threads = threads
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()

    async def counts(self, room: Room, user_id: str, now: int) -> UnreadCounts:
        """A joined user's unread counts at an announced position."""
        return (await self._at(room, user_id, now)).counts

    async def notices(self, room: Room, user_id: str, now: int) -> Sequence[UnreadNotice]:
        """What the counts are made of, oldest first; at most ``MAX_UNREAD``."""
        return (await self._at(room, user_id, now)).notices

    async def reading(self, room: Room, user_id: str, now: int) -> tuple[Reader, ReadUpTo]:
        """A joined user as whom events may notify, and what they have read."""
        known = await self._at(room, user_id, now)
        return known.reader, known.read

    async def _at(self, room: Room, user_id: str, now: int) -> _Known:
        key = (room.nid, user_id)
        known = await self._still_valid(room, user_id, now)
        if known is None:
            known = await self._anew(room, user_id, now)
        else:
            known = await self._brought_up_to(room, known, now) or await self._anew(room, user_id, now)
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED_ROOMS:
            self._known.popitem(last=False)
        return known

    async def _still_valid(self, room: Room, user_id: str, now: int) -> _Known | None:
        """What is known, unless something has changed that it rests on."""
        known = self._known.get((room.nid, user_id))
        if known is None or not room.full_since <= known.upto <= now:
            return None
        rules = await self._rules.of(user_id)
        if known.reader.rules is not rules and known.reader.rules.ruleset != rules.ruleset:
            return None
        if known.reader.ignored != await self._ignored.by(user_id):
            return None
        if known.reader.subscribed != await self._subscribed(room, user_id, rules):
            return None
        member = await self._states.member(room, user_id)
        if member is None or member.nid != known.member_nid:
            since = await self._visibility.joined_since(room, user_id, now)
            if since != known.reader.joined_since:
                return None
            known = msgspec.structs.replace(known, member_nid=member.nid if member else 0)
        return known

    async def _brought_up_to(self, room: Room, known: _Known, now: int) -> _Known | None:
        """The same at a later position; ``None`` where that takes a count from the beginning."""
        user_id, read = known.reader.user_id, known.read
        if self._receipts.may_have_changed(room.nid, known.upto):
            read = ReadUpTo(await self._receipts_of(room, user_id), read.own)
        if known.upto >= now and read == known.read:
            return known
        fresh, start = await self._batch(room, known.upto, now)
        targets = await self._targets(fresh)
        if start > known.upto or any(
            known.has_indirect or target.event.sender == user_id for target in targets
        ):
            # Too much is new, or a redaction may have changed in which threads earlier events are.
            return None
        own, indirect = await self._own(user_id, fresh)
        read = ReadUpTo(read.receipts, _later(read.own, own)) if own else read
        found = await self._notices.among(room, known.reader, fresh)
        notices = [notice for notice in map(_notice, found) if not read.is_read(notice.pos, notice.thread)]
        indirect = indirect or known.has_indirect or any(one.indirect for one in found)
        brought = msgspec.structs.replace(known, upto=now, read=read, has_indirect=indirect)
        if read == known.read and not targets:
            return _with_more(brought, notices)
        emptied = {target.nid for target in targets}
        kept = [
            notice
            for notice in known.notices
            if notice.nid not in emptied and not read.is_read(notice.pos, notice.thread)
        ]
        if known.is_cut and len(kept) + len(notices) < MAX_UNREAD:
            return None
        return _with_notices(brought, [*kept, *notices])

    async def _anew(self, room: Room, user_id: str, now: int) -> _Known:
        """Counted from the beginning: the receipt, or where the user joined."""
        receipts = await self._receipts_of(room, user_id)
        member = await self._states.member(room, user_id)
        reader, start = await self._reader(room, user_id, now, receipts.get(UNTHREADED))
        read = ReadUpTo(receipts, {})
        kept: list[UnreadNotice] = []
        indirect = False
        looked_at, upto = 0, now
        while upto > start and looked_at < _MAX_LOOKED_AT and len(kept) <= MAX_UNREAD:
            batch, upto = await self._batch(room, start, upto)
            looked_at += len(batch)
            own, own_indirect = await self._own(user_id, batch)
            read = ReadUpTo(receipts, _later(read.own, own))
            found = await self._notices.among(room, reader, batch)
            indirect = indirect or own_indirect or any(one.indirect for one in found)
            kept[:0] = [_notice(one) for one in found if not read.is_read(one.stored.pos or 0, one.thread)]
        kept = [notice for notice in kept if not read.is_read(notice.pos, notice.thread)]
        member_nid = member.nid if member else 0
        known = _Known(now, reader, member_nid, read, (), NOTHING_UNREAD, has_indirect=indirect)
        return _with_notices(known, kept)

    async def _reader(self, room: Room, user_id: str, now: int, receipt: int | None) -> tuple[Reader, int]:
        """Who reads, and the position that counting begins at."""
        since = await self._visibility.joined_since(room, user_id, now)
        rules = await self._rules.of(user_id)
        reader = Reader(
            user_id=user_id,
            rules=rules,
            ignored=await self._ignored.by(user_id),
            joined_since=now if since is None else since,
            subscribed=await self._subscribed(room, user_id, rules),
        )
        return reader, max(reader.joined_since, receipt if receipt is not None else 0)

    async def _subscribed(self, room: Room, user_id: str, rules: Rules) -> frozenset[str]:
        return await self._threads.roots(user_id, room.nid) if rules.asks_threads else frozenset()

    async def _receipts_of(self, room: Room, user_id: str) -> dict[str, int]:
        """The position each thread is read up to; ``UNTHREADED`` stands for all of them."""
        read: dict[str, int] = {}
        for receipt in await receipt_storage.of_user(self._db.read, room.nid, user_id):
            read[receipt.thread_id] = max(receipt.event_pos, read.get(receipt.thread_id, receipt.event_pos))
        return read

    async def _own(self, user_id: str, events: Iterable[StoredEvent]) -> tuple[dict[str, int], bool]:
        """The positions that threads are read up to because the user wrote there.

        And whether any of these is in its thread by way of other events.
        """
        own: dict[str, int] = {}
        any_indirect = False
        for stored in events:
            if _is_written_by(user_id, stored):
                thread, indirect = await self._notices.thread(stored)
                own[thread] = stored.pos or 0
                any_indirect = any_indirect or indirect
        return own, any_indirect

    async def _batch(self, room: Room, after: int, upto: int) -> tuple[list[StoredEvent], int]:
        """The newest events in ``(after, upto]``, oldest first, and the position they come after."""
        if after >= room.recent_after:
            return room.recent_between(after, upto)[::-1], after
        rows = await event_storage.timeline_backward(self._db.scan, room.nid, upto, _BATCH)
        batch = [stored for stored in reversed(rows) if (stored.pos or 0) > after]
        return batch, (rows[-1].pos or 0) - 1 if len(batch) == _BATCH else after

    async def _targets(self, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        """The events that redactions among these have emptied."""
        redacted = [
            stored.event.redacts for stored in events if stored.event.type == _REDACTION and stored.shown
        ]
        if not redacted:
            return []
        found = await self._events.by_ids([event_id for event_id in redacted if event_id is not None])
        return [target for target in found.values() if target.flags & REDACTED]


def _is_written_by(user_id: str, stored: StoredEvent) -> bool:
    """Whether an event says that its sender has read what came before it: a message of theirs.

    State is set by servers in people's names too, and a redaction says nothing of where they are.
    """
    event = stored.event
    if event.sender != user_id or event.is_state or event.type == _REDACTION:
        return False
    return stored.shown and not stored.flags & REDACTED


def _later(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    threads = {*one, *other}
    return {thread: max(one.get(thread, 0), other.get(thread, 0)) for thread in threads}


def _notice(found: Notified) -> UnreadNotice:
    return UnreadNotice(found.stored.pos or 0, found.stored.nid, found.thread, found.notice.highlight)


def _with_notices(known: _Known, notices: Sequence[UnreadNotice]) -> _Known:
    """The newest of the notices, and what they come to."""
    kept = tuple(notices[-MAX_UNREAD:])
    is_cut = known.is_cut or len(notices) > MAX_UNREAD
    return msgspec.structs.replace(known, notices=kept, counts=_counted(NOTHING_UNREAD, kept), is_cut=is_cut)


def _with_more(known: _Known, notices: Sequence[UnreadNotice]) -> _Known:
    """The same with newer notices behind those that are known."""
    if len(known.notices) + len(notices) > MAX_UNREAD:
        return _with_notices(known, [*known.notices, *notices])
    if not notices:
        return known
    return msgspec.structs.replace(
        known, notices=(*known.notices, *notices), counts=_counted(known.counts, notices)
    )


def _counted(before: UnreadCounts, notices: Iterable[UnreadNotice]) -> UnreadCounts:
    """Counts with more notices added to them."""
    sums = {thread: [one.notifications, one.highlights] for thread, one in before.threads.items()}
    sums[MAIN] = [before.main.notifications, before.main.highlights]
    for notice in notices:
        one = sums.setdefault(notice.thread, [0, 0])
        one[0] += 1
        one[1] += notice.highlight
    counts = {thread: Count(*one) for thread, one in sums.items()}
    return UnreadCounts(counts.pop(MAIN), counts)


def as_json(count: Count) -> Mapping[str, int]:
    """A count as responses have it."""
    return {"notification_count": count.notifications, "highlight_count": count.highlights}
