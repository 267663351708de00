"""Redacting what relates to a redacted event: its edits, its thread, a poll's answers (MSC3912).

Which children are meant is stored with the redaction itself.  They are redacted in the background, one
after the other, in the name of who redacted the parent: those they may not redact stay.  What comes
within a week is redacted too; after a restart everything of that time is gone through again.
Only direct children are meant, and of replacements and threads only those that are valid.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import Event
from homeserver.protocol.relations import REPLACE, THREAD, relation_in, replacement_slot, slot_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.bundles import is_thread_root
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import AlsoFor, Draft, Send
from homeserver.storage import related_redactions, relations
from homeserver.storage.append import Also
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.storage.related_redactions import RelatedRedaction
from homeserver.storage.relations import Between, Wanted
from homeserver.storage.rooms import StaleRoomError
from homeserver.tasks import Background

_log = structlog.get_logger()

ANY = "*"

#: How long children may come late.
_LATE_MS = 7 * 86_400_000
#: Redactions whose late children are looked for; the oldest give way.
_MAX_KNOWN = 10_000
#: Late children that wait to be redacted.
_MAX_WAITING = 10_000
#: Children of one read, and how long others have the room for themselves after it, in seconds.
_STEP = 50
_PAUSE_S = 0.02

_FAR = 1 << 62


class With(msgspec.Struct, frozen=True, gc=False):
    """Which children are to be redacted with an event, and what their redaction is based on."""

    #: ``*`` is any type.
    rel_types: tuple[str, ...]
    is_admin: bool = False
    own_only: bool = False


class RelatedRedactions:
    """Redacts children; ``look`` listens to new events."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        rooms: Rooms,
        events: EventCache,
        rights: RedactionRights,
        send: Send,
        background: Background,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rooms = rooms
        self._events = events
        self._rights = rights
        self._send = send
        self._background = background
        #: By room and parent, oldest first.
        self._known: dict[tuple[int, str], RelatedRedaction] = {}
        #: What is to be done: one child, or all there are.
        self._waiting: deque[tuple[RelatedRedaction, StoredEvent | None]] = deque(maxlen=_MAX_WAITING)
        self._work: asyncio.Task[None] | None = None

    async def redact(self, room_id: str, draft: Draft, wanted: With, also: AlsoFor | None) -> StoredEvent:
        """Send a redaction that the sender has a right to; its target's children follow in the background.

        Raises what ``Send.send`` does.
        """
        room, parent_id = await self._rooms.get(room_id), draft.redacts or ""
        target = await self._events.by_id(parent_id)
        event = target.event if target is not None and target.room_nid == room.nid else None
        reason = draft.content.get("reason")
        one = RelatedRedaction(
            redaction_id="",
            room_nid=room.nid,
            parent_id=parent_id,
            sender=draft.sender,
            rel_types=wanted.rel_types,
            slot=replacement_slot(event) if event is not None else None,
            is_thread_root=event is None or is_thread_root(event),
            is_admin=wanted.is_admin,
            own_only=wanted.own_only,
            reason=reason if isinstance(reason, str) else None,
            expires_ts=self._clock.now_ms() + _LATE_MS,
        )

        def remember(redaction: Event) -> Also:
            first = also(redaction) if also is not None else None
            return partial(_store, one=_named(one, redaction.event_id), first=first)

        stored = await self._send.send(room_id, draft, remember)
        self._begin(_named(one, stored.id))
        return stored

    def look(self, news: NewEvents) -> None:
        """Redact late children."""
        if not self._known:
            return
        for stored in news.events:
            relation = relation_in(stored.event)
            one = self._known.get((news.room.nid, relation.parent_id)) if relation is not None else None
            if one is not None and one.expires_ts > self._clock.now_ms():
                self._queue(one, stored)

    async def resume(self) -> None:
        """Go through everything again that is not over: once, after a start of the server."""
        for one in await related_redactions.newest(self._db.scan, self._clock.now_ms(), _MAX_KNOWN):
            self._begin(one)

    async def forget_expired(self) -> None:
        """Forget what is over."""
        now = self._clock.now_ms()
        for place, one in list(self._known.items()):
            if one.expires_ts <= now:
                del self._known[place]
        await self._db.write(partial(related_redactions.forget_expired, now=now))

    async def idle(self) -> None:
        """Wait until nothing is left to be done."""
        while self._work is not None:
            await self._work

    def _begin(self, one: RelatedRedaction) -> None:
        self._known.pop((one.room_nid, one.parent_id), None)
        if len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[one.room_nid, one.parent_id] = one
        self._queue(one, None)

    def _queue(self, one: RelatedRedaction, child: StoredEvent | None) -> None:
        if len(self._waiting) == _MAX_WAITING:
            _log.warning("too many related events to redact", waiting=_MAX_WAITING)
        self._waiting.append((one, child))
        if self._work is None:
            self._work = self._background.start(self._redact_waiting(), "related events to redact")

    async def _redact_waiting(self) -> None:
        try:
            while self._waiting:
                one, child = self._waiting.popleft()
                try:
                    await self._redact_children(one, child)
                except (MatrixError, NotAllowed, RemoteError, StaleRoomError) as error:
                    # The sender has left, for example: nothing more can be done in their name.
                    _log.info("related events not redacted", parent=one.parent_id, reason=str(error))
        finally:
            self._work = None

    async def _redact_children(self, one: RelatedRedaction, child: StoredEvent | None) -> None:
        room = await self._rooms.by_nid(one.room_nid)
        content = {} if one.reason is None else {"reason": one.reason}
        async for found in self._children(one) if child is None else _alone(child):
            if not _is_meant(one, found) or not await self._may_redact(one, room.room_id, found.id):
                continue
            await self._send.send(
                room.room_id, Draft(one.sender, "m.room.redaction", content, redacts=found.id)
            )

    async def _children(self, one: RelatedRedaction) -> AsyncIterator[StoredEvent]:
        """All that are there, newest first."""
        for rel_type in (None,) if ANY in one.rel_types else one.rel_types:
            high = _FAR
            while True:
                page = Between(-_FAR, high, _STEP)
                wanted = Wanted(rel_type=rel_type)
                nids = await relations.children(self._db.scan, one.room_nid, one.parent_id, wanted, page)
                found = await self._events.by_nids(nids)
                # What was purged meanwhile is missing.
                stored = [found[nid] for nid in nids if nid in found]
                for child in stored:
                    yield child
                if len(nids) < _STEP or not stored:
                    break
                high = (stored[-1].pos or 0) - 1
                await asyncio.sleep(_PAUSE_S)

    async def _may_redact(self, one: RelatedRedaction, room_id: str, event_id: str) -> bool:
        try:
            await self._rights.check(
                one.sender, room_id, event_id, is_admin=one.is_admin, own_only=one.own_only
            )
        except MatrixError:
            return False
        return True


def _is_meant(one: RelatedRedaction, child: StoredEvent) -> bool:
    """Whether a child is of the wanted types, and validly so."""
    relation = relation_in(child.event)
    if relation is None or child.flags & REDACTED or not {ANY, relation.rel_type} & {*one.rel_types}:
        return False
    if relation.rel_type == REPLACE:
        return one.slot is not None and slot_of(child.event, relation) == one.slot
    return relation.rel_type != THREAD or one.is_thread_root


def _named(one: RelatedRedaction, redaction_id: str) -> RelatedRedaction:
    return msgspec.structs.replace(one, redaction_id=redaction_id)


async def _alone(child: StoredEvent) -> AsyncIterator[StoredEvent]:
    yield child


async def _store(tx: Transaction, one: RelatedRedaction, first: Also | None) -> None:
    if first is not None:
        await first(tx)
    await related_redactions.add(tx, one)
