"""Keeps the index of searchable texts, behind the stream of events.

Sending does not wait for it: events are indexed when there is a moment, and before the next search
at the latest.  How far it has come is stored with every step, so that nothing is missed or done
for nothing after a crash.  Three ways lead into it: new events as they are announced (or from
storage, by their position, for one that is behind); a queue in the database for events that get
their place where the stream has been read already, and for those whose edit is redacted; and,
newest first, whatever was stored before there was an index.

What is redacted or purged is not this module's: its text goes in the transaction that does it
(``storage.search.forget``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import partial

import structlog

from homeserver.clock import Clock
from homeserver.protocol.relations import REPLACE, relation_in, replacement_slot
from homeserver.protocol.segmentation import VERSION
from homeserver.rooms.announcement import NewEvents
from homeserver.search.documents import TermHashes, document
from homeserver.storage import appservices as streams
from homeserver.storage import events as event_storage
from homeserver.storage import relations
from homeserver.storage import search as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.search import Document
from homeserver.sync.notifier import Notifier

_log = structlog.get_logger()

#: Events of one step, and how many are kept for the next ones; who is further behind reads them from storage.
_AT_ONCE = 100
_MAX_PENDING = 5_000
#: Positions that are read at once: as many events, and fewer where other things happened.
_WINDOW = _AT_ONCE << 16
#: How long news gather, and what failed is left alone, in seconds.
_GATHER_S = 2.0
_RETRY_S = 5.0
#: While people send, news gather for longer: so many seconds, or until there are so many.
_PATIENCE_S = 30.0
_MANY_PENDING = _MAX_PENDING // 2
#: Others have so many times the time of a step for themselves after it: while people send, and while not.
_SHARE_BUSY = 9
_SHARE_IDLE = 1
#: Characters of texts that are stored in one transaction: all that is sent meanwhile waits for it.
_STORED_AT_ONCE = 32_000
#: Documents of an index that is given up, removed in one transaction.
_CLEARED_AT_ONCE = 500


class SearchIndex:
    """The index.  ``open`` before anything is written or searched, then ``run``."""

    def __init__(
        self,
        db: Database,
        notifier: Notifier,
        clock: Clock,
        *,
        at_once: int = _AT_ONCE,
        gather: float = _GATHER_S,
    ) -> None:
        self._db = db
        self._notifier = notifier
        self._clock = clock
        self._at_once = at_once
        self._gather = gather
        self._stepping = asyncio.Lock()
        self._wake = asyncio.Event()
        self._pending: deque[tuple[int, StoredEvent]] = deque()
        #: Events were announced that are not among the pending ones.
        self._behind = True
        #: How often something was announced.
        self._news = 0
        self._pos = 0
        #: Of the events that were there before the index, those up to here are still to be looked at.
        self._upto = 0
        self.hashes = TermHashes(b"")

    async def open(self) -> None:
        """Go on where it was left; begin anew where texts would be stored in another form today."""
        progress = await storage.progress(self._db.read)
        if progress is None or progress.version != VERSION:
            await discard(self._db)
            key, pos = secrets.token_bytes(16), self._notifier.position
            progress = await self._db.write(partial(storage.begin, version=VERSION, key=key, pos=pos))
        self._pos, self._upto = progress.pos, progress.upto
        self.hashes = TermHashes(progress.key)
        self._notifier.listeners.append(self._new_events)
        self._wake.set()

    @property
    def is_filled(self) -> bool:
        """Whether all that was there before the index is in it."""
        return self._upto <= 0

    async def run(self) -> None:
        """Index for as long as the server runs; a failure is logged and does not end it."""
        while True:
            try:
                self._wake.clear()
                if not await self._in_peace() and self.is_filled:
                    await self._wake.wait()
                    await self._quiet()
            except Exception:
                _log.exception("indexing for the search failed")
                await asyncio.sleep(_RETRY_S)

    async def _quiet(self) -> None:
        """Wait for a moment in which nobody sends: indexing then is in nobody's way.  Not for ever."""
        loop = asyncio.get_running_loop()
        deadline, news = loop.time() + _PATIENCE_S, -1
        while news != self._news and loop.time() < deadline and len(self._pending) < _MANY_PENDING:
            news = self._news
            await asyncio.sleep(self._gather)

    async def _in_peace(self) -> bool:
        """Do one step, and wait so long after it that those who send hardly notice; whether there is more."""
        loop = asyncio.get_running_loop()
        news, started = self._news, loop.time()
        async with self._stepping:
            is_more = not await self._step(self._notifier.position)
            if not is_more:
                await self._fill()
        share = _SHARE_IDLE if self._news == news else _SHARE_BUSY
        await asyncio.sleep(share * (loop.time() - started))
        return is_more

    async def catch_up(self, patience: float = float("inf")) -> bool:
        """Index everything that is on disk by now; false when that takes longer than some seconds."""
        loop = asyncio.get_running_loop()
        deadline, upto = loop.time() + patience, self._notifier.position
        while loop.time() < deadline:
            async with self._stepping:
                if await self._step(upto):
                    return True
        return False

    def _new_events(self, news: NewEvents) -> None:
        """A listener of the notifier."""
        wanted = [stored for stored in news.events if storage.is_searched(stored)]
        if len(self._pending) + len(wanted) > _MAX_PENDING:
            self._pending.clear()
            self._behind = True
        if not self._behind:
            self._pending.extend((news.pos, stored) for stored in wanted)
        self._news += 1
        self._wake.set()

    async def _step(self, upto: int) -> bool:
        """Index some of what is there; whether that was all, up to an announced position."""
        queue = await storage.queued(self._db.scan, self._at_once)
        again = await event_storage.by_nids(self._db.scan, [nid for _, nid in queue])
        # What is read from storage is read without what comes meanwhile: that is pending from here on.
        pending = list(self._pending)[: self._at_once]
        behind = self._behind
        events, pos = await self._read() if behind else ([one for _, one in pending], self._pos)
        if pending:
            pos = pending[-1][0]
        if queue or events or (behind and pos > self._pos):
            documents, without = await self._documents([*again.values(), *events])
            missing = [nid for _, nid in queue if nid not in again]
            await self._store(
                documents, without=[*without, *missing], done=[row_id for row_id, _ in queue], pos=pos
            )
        self._pos = max(self._pos, pos)
        for one in pending:
            if self._pending and self._pending[0] is one:
                self._pending.popleft()
        return not (queue or self._behind or (self._pending and self._pending[0][0] <= upto))

    async def _read(self) -> tuple[list[StoredEvent], int]:
        """The next events of the stream from storage, and the position they end at."""
        last = self._notifier.position
        newest = min(last, await streams.newest_event_pos(self._db.scan))
        end = min(self._pos + _WINDOW, newest)
        rows = await streams.events_between(self._db.scan, self._pos, end) if end > self._pos else []
        events = await event_storage.by_nids(self._db.scan, [nid for _, nid, _ in rows])
        if end < newest:
            return list(events.values()), end
        if self._notifier.position == last:
            self._behind = False
        return list(events.values()), last

    async def _fill(self) -> None:
        """Index some of the events that were stored before there was an index, newest first."""
        if self.is_filled:
            return
        low = max(0, self._upto - self._at_once)
        events = await event_storage.placed_between(self._db.scan, low, self._upto)
        documents, _ = await self._documents(events)
        await self._store(documents, without=[], upto=low)
        self._upto = low

    async def _store(
        self,
        documents: Sequence[Document],
        *,
        without: Sequence[int],
        done: Sequence[int] = (),
        pos: int | None = None,
        upto: int | None = None,
    ) -> None:
        """``storage.store`` in transactions that are short; the last says how far that is."""
        *before, last = _parts(documents)
        for part in before:
            await self._db.write(partial(storage.store, documents=part, without=[]))
        await self._db.write(
            partial(storage.store, documents=last, without=without, done=done, pos=pos, upto=upto)
        )

    async def _documents(self, events: Sequence[StoredEvent]) -> tuple[list[Document], list[int]]:
        """The documents that some events give, and the events that have none.

        An edit gives one to the event it is of, and has none of its own.
        """
        searched = [stored for stored in events if storage.is_searched(stored)]
        edited = {stored.nid: parent_id for stored in searched if (parent_id := _edits(stored)) is not None}
        parents = await event_storage.by_ids(self._db.scan, sorted({*edited.values()}))
        subjects = {stored.nid: stored for stored in searched if stored.nid not in edited}
        subjects |= {parent.nid: parent for parent in parents.values() if storage.is_searched(parent)}
        subjects = {nid: stored for nid, stored in subjects.items() if _edits(stored) is None}
        edits = await self._edits_of(subjects.values())
        now = self._clock.now_ms()
        documents: list[Document] = []
        without = [nid for nid in edited if nid not in subjects]
        for count, stored in enumerate(subjects.values(), 1):
            made = document(stored, edits.get(stored.nid), self.hashes, now)
            if made is None:
                without.append(stored.nid)
            else:
                documents.append(made)
            if count % 20 == 0:
                await asyncio.sleep(0)
        return documents, without

    async def _edits_of(self, events: Collection[StoredEvent]) -> dict[int, StoredEvent]:
        """The newest edit of each event that has any."""
        slots = {
            slot: stored.nid
            for stored in events
            if stored.shown and (slot := replacement_slot(stored.event)) is not None
        }
        newest = await relations.newest_in_slots(self._db.scan, list(slots))
        edits = await event_storage.by_nids(self._db.scan, list(newest.values()))
        return {slots[slot]: edits[nid] for slot, nid in newest.items() if _is_whole(edits[nid])}


async def discard(db: Database) -> None:
    """Remove the index, if there is any."""
    await db.write(storage.stop)
    is_more = True
    while is_more:
        is_more = await db.write(partial(storage.clear, limit=_CLEARED_AT_ONCE))


def _edits(stored: StoredEvent) -> str | None:
    """The event that an event is an edit of."""
    relation = None if stored.event.is_state else relation_in(stored.event)
    return relation.parent_id if relation is not None and relation.rel_type == REPLACE else None


def _is_whole(edit: StoredEvent) -> bool:
    """Whether it has not been redacted since it was found."""
    return isinstance(edit.event.content.get("m.new_content"), dict)


def _parts(documents: Iterable[Document]) -> list[list[Document]]:
    """Documents in parts that are quickly stored; one part where there are none."""
    parts: list[list[Document]] = [[]]
    size = 0
    for one in documents:
        size += len(one.words)
        if size > _STORED_AT_ONCE and parts[-1]:
            parts.append([])
            size = len(one.words)
        parts[-1].append(one)
    return parts
