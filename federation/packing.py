"""Makes the next transaction for a destination, from what waits for it and from what storage has.

A destination that was away is sent all it lacks in order, if that is not much.  After
a long absence it is sent the newest event of each room instead, the longest quiet room
first, from which it finds what came before; then everything since.  What it is owed is
told by its stays in rooms (``storage/stays.py``): what was sent while it was in a room and
the event by which it left, nothing from before it joined.
Specification: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from typing import Final

import structlog

from federation.outgoing import (
    MAX_EDU_BYTES,
    MAX_EDUS,
    MAX_PDUS,
    Outgoing,
    Progress,
    Transaction,
    transaction_id,
    transaction_json,
)
from federation.waiting_edus import is_of_type, receipt_edus, said_of
from homeserver.clock import Clock
from homeserver.protocol.ids import server_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.storage import outbox, stays
from homeserver.storage import receipts as receipt_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.stays import RoomNews

_log = structlog.get_logger()

#: More missed events than this are not all sent: each room's newest is, and the peer asks for the rest.
MAX_CAUGHT_UP: Final = 500

#: How many rooms are looked up at a time after a long absence, and how many receipts.
_ROOMS: Final = 1000
_RECEIPTS: Final = 500
#: Each may need an EDU of its own.
_RECEIPTS_AT_ONCE: Final = MAX_EDUS
#: How far back to look in a room whose newest event was handed on for somebody else.
_HANDED_ON: Final = 10

#: For so long a body that was made for one destination is sent to others.
_SAME_BODY_MS: Final = 1000

TO_DEVICE: Final = "m.direct_to_device"


class Packing:
    """Makes transactions; ``position`` tells up to where events and receipts are on disk."""

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        clock: Clock,
        server_name: str,
        sticky: StickyEvents,
        position: Callable[[], int],
        max_caught_up: int = MAX_CAUGHT_UP,
    ) -> None:
        self._db = db
        self._events = events
        self._clock = clock
        self._server_name = server_name
        self._sticky = sticky
        self._position = position
        self._max_caught_up = max_caught_up
        self._started_ms = clock.now_ms()
        self._numbers = count(1)
        #: When it was made, of what, and the body.
        self._newest_body: tuple[int, tuple[tuple[bytes, ...], ...], bytes] = (0, (), b"")

    async def next_transaction(self, outgoing: Outgoing) -> Transaction | None:
        """What to send next; ``None`` where that turned out to be nothing."""
        pdus, sent = await self._pdus(outgoing)
        sticky, sticky_pdus = await self._sticky_pdus(outgoing, min(MAX_PDUS, outgoing.at_most) - len(pdus))
        pdus += sticky_pdus
        limit = 0 if outgoing.single and pdus else outgoing.at_most
        receipts, receipts_pos = await self._receipts(outgoing, limit)
        durable, outbox_pos = await self._outbox(outgoing, limit - len(receipts))
        fleeting = await self._fleeting(outgoing, limit - len(receipts) - len(durable))
        progress = Progress(sent.sent_pos, sent.caught_up_pos, receipts_pos, outbox_pos)
        edus = [*receipts, *durable, *fleeting]
        if not pdus and not edus:
            await self._skip(outgoing, progress)
            return None
        lasting = [*pdus, *receipts, *durable]
        unique = f"{self._started_ms}-{next(self._numbers)}"
        if sticky:
            # Once more the same is not a repetition, which would be answered without being looked at.
            lasting.append(unique.encode())
        return Transaction(
            transaction_id=transaction_id(lasting) if lasting else unique,
            body=self._body(tuple(pdus), tuple(edus)),
            size=len(pdus) + len(edus),
            fleeting=bool(fleeting),
            progress=progress,
            sticky=sticky,
        )

    def _body(self, pdus: tuple[bytes, ...], edus: tuple[bytes, ...]) -> bytes:
        """A body, the same bytes for all destinations that are sent the same within a moment."""
        now_ms = self._clock.now_ms()
        made_ms, parts, body = self._newest_body
        if parts != (pdus, edus) or now_ms - made_ms > _SAME_BODY_MS:
            body = transaction_json(self._server_name, now_ms, pdus, edus)
            self._newest_body = now_ms, (pdus, edus), body
        return body

    async def _sticky_pdus(self, outgoing: Outgoing, limit: int) -> tuple[tuple[int, ...], list[bytes]]:
        """Events that stick and are owed for that: those that do so still."""
        nids = tuple(outgoing.sticky.popleft() for _ in range(min(limit, len(outgoing.sticky))))
        stored = await self._events.by_nids(nids)
        return nids, [
            stored[nid].event.json
            for nid in nids
            if nid in stored and self._sticky.ttl_ms(stored[nid]) is not None
        ]

    async def _skip(self, outgoing: Outgoing, progress: Progress) -> None:
        """Nothing up to here is for the destination."""
        outgoing.advance(progress)
        if progress.outbox_pos is not None:
            await self._db.write(
                partial(outbox.remove_upto, destination=outgoing.server_name, pos=progress.outbox_pos)
            )

    async def _pdus(self, outgoing: Outgoing) -> tuple[list[bytes], Progress]:
        if outgoing.behind and not outgoing.newest:
            await self._read_missed(outgoing)
        if outgoing.newest:
            return await self._newest(outgoing)
        limit = min(MAX_PDUS, outgoing.at_most, len(outgoing.events))
        events = [outgoing.events.popleft() for _ in range(limit)]
        stored = await self._events.by_nids([nid for _, nid in events])
        pdus = [stored[nid] for _, nid in events if nid in stored and not stored[nid].purged]
        return _json_for(outgoing, pdus), Progress(sent_pos=events[-1][0] if events else None)

    async def _read_missed(self, outgoing: Outgoing) -> None:
        """Find out which events a destination lacks, or which rooms have news for it."""
        upto = self._position()
        if outgoing.owed is not None:
            await asyncio.wait([outgoing.owed])
        if not outgoing.caught_up_pos:
            outgoing.behind = False
            missed = await stays.missed(
                self._db.scan, outgoing.server_name, outgoing.sent_pos, upto, self._max_caught_up + 1
            )
            if len(missed) <= self._max_caught_up:
                outgoing.events.extendleft(reversed(missed))
                if not missed:
                    outgoing.sent_pos = max(outgoing.sent_pos, upto)
                return
            outgoing.fall_behind()
            outgoing.caught_up_pos = max(outgoing.sent_pos, 1)
            _log.info("destination was away for long", destination=outgoing.server_name)
            await self._owe_sticky(outgoing)
        outgoing.catch_up_to = outgoing.catch_up_to or upto
        rooms = await stays.newest_missed(
            self._db.scan, outgoing.server_name, outgoing.caught_up_pos, outgoing.catch_up_to, _ROOMS
        )
        outgoing.newest.extend(rooms)
        if not rooms:
            outgoing.advance(Progress(sent_pos=outgoing.catch_up_to, caught_up_pos=0))
            outgoing.catch_up_to = 0

    async def _owe_sticky(self, outgoing: Outgoing) -> None:
        """Of what is left out because there is so much of it, what sticks is sent all the same."""
        rooms = self._sticky.rooms_with_own()
        shared = await stays.current(self._db.scan, rooms) if rooms else []
        for server_name, room_nid, joined_pos in shared:
            if server_name == outgoing.server_name:
                own = self._sticky.own(room_nid)
                outgoing.add_sticky(one.event_nid for one in own if (one.pos or 0) > joined_pos)

    async def _newest(self, outgoing: Outgoing) -> tuple[list[bytes], Progress]:
        """The newest events of the next rooms."""
        limit = min(MAX_PDUS, outgoing.at_most)
        rooms = list(islice(outgoing.newest, limit))
        stored = await self._events.by_nids([room.event_nid for room in rooms])
        pdus: list[bytes] = []
        caught_up_pos = None
        for room in rooms:
            found = await self._leaves(outgoing, room, stored.get(room.event_nid))
            if pdus and len(pdus) + len(found) > limit:
                break
            pdus += _json_for(outgoing, found)
            caught_up_pos = room.pos
            outgoing.newest.popleft()
        return pdus, Progress(caught_up_pos=caught_up_pos)

    async def _leaves(
        self, outgoing: Outgoing, room: RoomNews, newest: StoredEvent | None
    ) -> list[StoredEvent]:
        """The newest event, and what was sent before and does not lead to it.

        An event made here builds on everything before it; one that was handed on for
        another server need not.
        """
        if newest is None or newest.purged:
            return []
        if server_of(newest.event.sender) == self._server_name:
            return [newest]
        after = max(room.joined_pos, outgoing.sent_pos)
        nids = await stays.sent_before(self._db.scan, room.room_nid, after, room.pos, _HANDED_ON)
        stored = await self._events.by_nids(nids)
        return leaves([stored[nid] for nid in reversed(nids)])

    async def _receipts(self, outgoing: Outgoing, limit: int) -> tuple[list[bytes], int | None]:
        if not limit:
            return [], None
        if outgoing.receipts_behind and not outgoing.receipts:
            await self._read_receipts(outgoing)
        said, upto = outgoing.receipts.take(min(limit, _RECEIPTS_AT_ONCE))
        return receipt_edus(said), upto

    async def _read_receipts(self, outgoing: Outgoing) -> None:
        """Read a page of the receipts a destination lacks; those that come meanwhile are read later."""
        upto = self._position()
        page = await receipt_storage.for_server(
            self._db.scan,
            outgoing.server_name,
            self._server_name,
            outgoing.receipts_pos,
            upto,
            limit=_RECEIPTS,
        )
        for room_id, receipt in page:
            if server_of(receipt.user_id) == self._server_name:
                said = said_of(receipt.event_id, receipt.ts, receipt.thread_id)
                outgoing.receipts.add(receipt.pos, room_id, receipt.user_id, receipt.thread_id, said)
        if len(page) < _RECEIPTS:
            outgoing.receipts_behind = self._position() > upto
        if not outgoing.receipts:
            outgoing.receipts_pos = page[-1][1].pos if len(page) == _RECEIPTS else upto

    async def _outbox(self, outgoing: Outgoing, limit: int) -> tuple[list[bytes], int | None]:
        """EDUs that have to arrive; of those about people in rooms none where no room is shared."""
        if not outgoing.outbox or limit <= 0:
            return [], None
        # Before it is read: what is added meanwhile sets it again.
        outgoing.outbox = False
        rows = await outbox.oldest(self._db.scan, outgoing.server_name, limit)
        fitting = _fitting(rows)
        outgoing.outbox = outgoing.outbox or len(rows) == limit or len(fitting) < len(rows)
        edus = [edu for _, edu in fitting]
        if not all(is_of_type(edu, TO_DEVICE) for edu in edus) and not await self._shares_a_room(outgoing):
            edus = [edu for edu in edus if is_of_type(edu, TO_DEVICE)]
        return edus, fitting[-1][0] if fitting else None

    async def _fleeting(self, outgoing: Outgoing, limit: int) -> list[bytes]:
        if outgoing.edus.has_presence and not await self._shares_a_room(outgoing):
            outgoing.edus.forget_presence()
        return outgoing.edus.take(limit, outgoing.server_name, self._clock.monotonic())

    async def _shares_a_room(self, outgoing: Outgoing) -> bool:
        return await room_storage.share_a_room(self._db.read, outgoing.server_name, self._server_name)


def leaves(events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Those of the events that none of the others builds on directly."""
    built_on = {event_id for stored in events for event_id in stored.event.prev_events}
    return [stored for stored in events if stored.id not in built_on]


def _json_for(outgoing: Outgoing, events: Sequence[StoredEvent]) -> list[bytes]:
    """The PDUs, without those of the destination itself that were handed on to others."""
    return [stored.event.json for stored in events if server_of(stored.event.sender) != outgoing.server_name]


def _fitting(rows: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """As many of the EDUs as one transaction takes, and one in any case."""
    size = 0
    for number, (_, edu) in enumerate(rows):
        size += len(edu)
        if number and size > MAX_EDU_BYTES:
            return rows[:number]
    return rows
