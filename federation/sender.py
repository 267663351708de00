"""Sends this server's events and EDUs to the other servers in its rooms.

Each destination with news has a task that sends one transaction after another.  What
was delivered is a position per destination, stored now and then: after a restart,
or when a destination was away, what it lacks is read from storage (``packing``).  A
destination that fails is left alone for longer and longer, until it speaks or answers to
this server.  Only transactions wait for that: requests on behalf of people are always made.
Specification: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import structlog

from federation.delivery import Delivery, SendsTransactions
from federation.durable_edus import DurableEdus
from federation.greeting import Greeting
from federation.handing_out import HandingOut
from federation.outgoing import Outgoing, outgoing_from
from federation.packing import MAX_CAUGHT_UP, Packing
from federation.waiting_edus import edu_json, said_of
from homeserver.clock import Clock
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.storage import destinations, outbox, stays
from homeserver.storage.database import Database
from homeserver.storage.database import Transaction as Write
from homeserver.storage.destinations import Destination
from homeserver.storage.events import SENT_HERE, StoredEvent
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.outbox import OutboxEdu
from homeserver.storage.receipts import Receipt

_log = structlog.get_logger()

#: EDUs kept for a destination that is down, and for how long.
MAX_OUTBOX: Final = 10_000
MAX_OUTBOX_AGE_MS: Final = 30 * 24 * 3600 * 1000
#: Larger EDUs are not sent: nothing that fits into an event needs them.
MAX_EDU_SIZE: Final = 128 * 1024
#: Transactions that are made and on their way at the same time, which bounds what they take of memory.
MAX_AT_ONCE: Final = 500

_TICK_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 60.0
_TIDY_SECONDS: Final = 3600.0
#: The outbox of a destination that is down is cut when so many EDUs were added.
_CUT_EVERY: Final = 1000
_CLOSE_SECONDS: Final = 5.0


class Sender:
    """The queue to every other server.

    ``start`` before anything else; ``new_events`` is a listener of the notifier.
    """

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        client: SendsTransactions,
        outbox_positions: NumberSequence,
        clock: Clock,
        server_name: str,
        allows: Callable[[str], bool],
        sticky: StickyEvents,
        max_caught_up: int = MAX_CAUGHT_UP,
    ) -> None:
        self._db = db
        self._outbox_positions = outbox_positions
        self._clock = clock
        self._server_name = server_name
        self._greeting = Greeting(sticky, clock, self._give_sticky)
        self._allows = lru_cache(maxsize=10_000)(allows)
        #: Of events and receipts on disk.
        self._handing_out = HandingOut()
        self._packing = Packing(
            db=db,
            events=events,
            clock=clock,
            server_name=server_name,
            sticky=sticky,
            position=lambda: self._handing_out.announced,
            max_caught_up=max_caught_up,
        )
        self._delivery = Delivery(db=db, client=client, clock=clock)
        self._outgoing: dict[str, Outgoing] = {}
        #: Destinations with a stored record.
        self._known: set[str] = set()
        #: When to try again which destinations; some entries may be out of date.
        self._due: list[tuple[int, str]] = []
        self._free = asyncio.Semaphore(MAX_AT_ONCE)
        self._stored_at = self._tidied_at = clock.monotonic()
        self._ticking: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, position: int) -> None:
        """Find out what destinations lack up to ``position``, and begin to send."""
        self._handing_out.start(position)
        rows = {row.server_name: row for row in await destinations.everyone(self._db.scan)}
        self._known.update(rows)
        working = [min(row.sent_pos, row.receipts_pos) for row in rows.values() if not row.failures]
        since = min(working, default=position if rows else 0)
        owed = await stays.servers_owed(self._db.scan, since)
        failing = {row.server_name for row in rows.values() if row.failures}
        for server_name in owed | failing:
            if server_name != self._server_name and self._allows(server_name):
                row = rows.get(server_name, Destination(server_name, 0, receipts_pos=since))
                self._outgoing[server_name] = outgoing_from(row)
        for server_name in await outbox.destinations(self._db.scan):
            if self._allows(server_name):
                self._of(server_name).outbox = True
        await self._greeting.start(self._db)
        for outgoing in list(self._outgoing.values()):
            self._try_at(outgoing)
            self._wake(outgoing)
        self._ticking = asyncio.create_task(self._tick_forever(), name="federation sender")

    def new_events(self, news: NewEvents) -> None:
        """Queue those of the events that this server sends, for every server they are for."""
        for stored in news.events:
            if stored.flags & SENT_HERE and stored.pos is not None:
                servers, outside = _destinations(news.room, stored.event)
                if servers:
                    self._handing_out.give(servers, partial(self._give_event, stored, outside))
            if stored.event.type == MEMBER:
                self._greeting.new_member(news.room, stored.event)
        self._handing_out.give((), _nothing, news.pos)

    def _give_event(self, stored: StoredEvent, outside: Collection[str], server_name: str) -> bool:
        pos = stored.pos or 0
        busy = self._outgoing.get(server_name)
        if busy is not None and busy.worker is not None and server_name not in outside:
            # What most of a thousand servers are, so that for each there is no more to do than this.
            busy.add_event(pos, stored.nid)
            return False
        if not self._is_wanted(server_name):
            return False
        outgoing = self._of(server_name, before=pos)
        outgoing.add_event(pos, stored.nid)
        if server_name in outside:  # of its stay in the room this is no part
            owe = partial(stays.owe, server_name=server_name, room_nid=stored.room_nid, pos=pos)
            outgoing.owed = self._db.write(owe)
        return self._wake(outgoing)

    def _give_sticky(self, server_name: str, nids: Iterable[int]) -> None:
        if self._is_wanted(server_name):
            outgoing = self._of(server_name)
            outgoing.add_sticky(nids)
            self._wake(outgoing)

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        """Queue one EDU; returns at once.  A ``durable`` one is kept until the server has it."""
        if durable:
            edus = self.durable([(destination, edu_type, content)])
            self._db.write(edus.store).add_done_callback(edus.written)
        elif self._is_wanted(destination):
            outgoing = self._of(destination)
            if not outgoing.failures:
                outgoing.edus.add_other(edu_json(edu_type, content))
                self._wake(outgoing)

    def durable(self, edus: Iterable[tuple[str, str, Mapping[str, Any]]]) -> DurableEdus:
        """EDUs, each with its destination and type, to be stored with something else and then sent."""
        now_ms = self._clock.now_ms()
        rows = []
        for destination, edu_type, content in edus:
            if not self._is_wanted(destination):
                continue
            edu = edu_json(edu_type, content)
            if len(edu) > MAX_EDU_SIZE:
                _log.warning("EDU too large", destination=destination, edu_type=edu_type, bytes=len(edu))
                continue
            rows.append(OutboxEdu(destination, self._outbox_positions.next(), edu, now_ms))
        return DurableEdus(rows, self._in_outbox)

    def send_typing(self, room: Room, user_id: str, typing: bool) -> None:
        """Tell the servers in a room that a user here types, or does not any more."""
        now = self._clock.monotonic()

        def give(outgoing: Outgoing) -> None:
            outgoing.edus.add_typing(room, user_id, typing, now)

        self._handing_out.give(tuple(room.servers), partial(self._give_fleeting, give))

    def send_presence(self, servers: Collection[str], update: Mapping[str, Any]) -> None:
        """Tell servers of a user's presence, as ``m.presence`` lists it."""

        def give(outgoing: Outgoing) -> None:
            outgoing.edus.add_presence(update)

        self._handing_out.give(tuple(servers), partial(self._give_fleeting, give))

    def send_receipts(self, room: Room, receipts: Sequence[Receipt]) -> None:
        """Tell the servers in a room of receipts of users here, which are on disk."""
        for receipt in receipts:
            said = said_of(receipt.event_id, receipt.ts, receipt.thread_id)
            give = partial(self._give_receipt, room.room_id, receipt, said)
            self._handing_out.give(tuple(room.servers), give, receipt.pos)

    def _give_receipt(self, room_id: str, receipt: Receipt, said: object, server_name: str) -> bool:
        if not self._is_wanted(server_name):
            return False
        outgoing = self._of(server_name, before=receipt.pos)
        outgoing.add_receipt(receipt.pos, room_id, receipt.user_id, receipt.thread_id, said)
        return self._wake(outgoing)

    def peer_is_alive(self, server_name: str) -> None:
        """A server spoke or answered: whatever failed before is tried again, at once or nearly so."""
        outgoing = self._outgoing.get(server_name)
        if outgoing is None or not outgoing.failures:
            return
        if outgoing.worker is not None:
            outgoing.spoke = True
            return
        too_early = outgoing.heard_from(self._clock.monotonic())
        if too_early <= 0:
            outgoing.works()
            self._wake(outgoing)
            return
        retry_at_ms = self._clock.now_ms() + round(too_early * 1000)
        if retry_at_ms < outgoing.retry_at_ms:
            outgoing.contacts += 1
            outgoing.retry_at_ms = retry_at_ms
            self._try_at(outgoing)

    def tick(self) -> None:
        """Try again those whose time has come; called every second."""
        while self._due and self._due[0][0] <= self._clock.now_ms():
            outgoing = self._outgoing.get(heapq.heappop(self._due)[1])
            if outgoing is not None and outgoing.failures:
                self._wake(outgoing)
        self._greeting.go_on()
        if self._clock.monotonic() >= self._stored_at + _STORE_SECONDS:
            self._store_positions()
        if self._clock.monotonic() >= self._tidied_at + _TIDY_SECONDS:
            self._tidied_at = self._clock.monotonic()
            before_ms = self._clock.now_ms() - MAX_OUTBOX_AGE_MS
            old = self._db.write(partial(outbox.remove_older, before_ms=before_ms))
            old.add_done_callback(_log_given_up)
            self._db.write(stays.forget_delivered)

    async def close(self) -> None:
        """Give transactions that are on their way a moment, then store how far each destination got."""
        self._closing = True
        if self._ticking is not None:
            self._ticking.cancel()
        try:
            await asyncio.wait_for(self.idle(), _CLOSE_SECONDS)
        except TimeoutError:
            late = self._workers()
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._store_positions()

    async def idle(self) -> None:
        """Wait until nothing is on its way; what failed waits for its time."""
        while workers := self._workers():
            await asyncio.wait(workers)

    def _workers(self) -> list[asyncio.Task[None]]:
        working = [each.worker for each in self._outgoing.values() if each.worker is not None]
        handing_out = self._handing_out.task
        return working if handing_out is None else [*working, handing_out]

    def _is_wanted(self, server_name: str) -> bool:
        return server_name not in ("", self._server_name) and self._allows(server_name)

    def _give_fleeting(self, give: Callable[[Outgoing], None], server_name: str) -> bool:
        """What may be lost is for those that work."""
        if not self._is_wanted(server_name):
            return False
        outgoing = self._of(server_name)
        if outgoing.failures:
            return False
        give(outgoing)
        return self._wake(outgoing)

    def _in_outbox(self, destination: str) -> None:
        outgoing = self._of(destination)
        outgoing.outbox = True
        outgoing.outbox_added += 1
        if outgoing.outbox_added >= _CUT_EVERY:
            outgoing.outbox_added = 0
            cut = self._db.write(partial(outbox.remove_oldest, destination=destination, keep=MAX_OUTBOX))
            cut.add_done_callback(partial(_log_given_up, destination=destination))
        self._wake(outgoing)

    def _of(self, server_name: str, before: int | None = None) -> Outgoing:
        outgoing = self._outgoing.get(server_name)
        if outgoing is None:
            pos = self._handing_out.reached if before is None else min(self._handing_out.reached, before - 1)
            outgoing = self._outgoing[server_name] = Outgoing(server_name, pos, pos)
        return outgoing

    def _is_due(self, outgoing: Outgoing) -> bool:
        return not self._closing and outgoing.has_news and self._clock.now_ms() >= outgoing.retry_at_ms

    def _try_at(self, outgoing: Outgoing) -> None:
        """See to it that a destination that fails is tried when its time has come."""
        if outgoing.failures:
            heapq.heappush(self._due, (outgoing.retry_at_ms, outgoing.server_name))

    def _wake(self, outgoing: Outgoing) -> bool:
        """Begin to send to a destination, where that is due; whether it was."""
        if outgoing.worker is not None or not self._is_due(outgoing):
            return False
        outgoing.worker = asyncio.create_task(self._work(outgoing), name=f"sending to {outgoing.server_name}")
        return True

    async def _work(self, outgoing: Outgoing) -> None:
        """Send until there is nothing to send, or the destination fails."""
        try:
            await self._introduce(outgoing)
            while self._is_due(outgoing):
                async with self._free:
                    if outgoing.on_its_way is None:
                        outgoing.on_its_way = await self._packing.next_transaction(outgoing)
                    if outgoing.on_its_way is not None:
                        await self._delivery.deliver(outgoing, outgoing.on_its_way)
        except Exception:
            _log.exception("sending failed", destination=outgoing.server_name)
            outgoing.forget_on_its_way()
            outgoing.failed(self._clock.now_ms(), random.random())
        finally:
            outgoing.worker = None
        self._try_at(outgoing)
        if not outgoing.has_news and not outgoing.failures:
            self._outgoing.pop(outgoing.server_name, None)

    async def _introduce(self, outgoing: Outgoing) -> None:
        """Store a destination that is new: it starts with what is sent now."""
        if outgoing.server_name not in self._known:
            await self._db.write(partial(destinations.put, destination=outgoing.row()))
            self._known.add(outgoing.server_name)

    def _store_positions(self) -> asyncio.Future[None]:
        """Store how far each destination is: those with nothing waiting have everything."""
        self._stored_at = self._clock.monotonic()
        position = self._handing_out.reached
        busy: list[Destination] = []
        for each in self._outgoing.values():
            if each.failures and each.stored_as_failing:
                continue
            if not each.all_delivered:
                busy.append(each.row())
            elif each.stored_as_failing:
                each.stored_as_failing = False
                busy.append(Destination(each.server_name, position, receipts_pos=position))

        async def store(tx: Write) -> None:
            await destinations.advance(tx, position)
            for row in busy:
                await destinations.put(tx, row)

        return self._db.write(store)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tick()


def _destinations(room: Room, event: Event) -> tuple[Sequence[str], Collection[str]]:
    """The servers in a room, wanted or not, and the one whose user has just been removed from it.

    Those of them that are not in the room stand apart as well.  Not the sender's: where it is not
    this one, it has the event.
    """
    own = server_of(event.sender)
    servers = [server_name for server_name in room.servers if server_name != own]
    if event.type == MEMBER and event.content.get("membership") in ("leave", "ban"):
        removed = server_of(event.state_key or "")
        if removed != own and removed not in room.servers:
            return [*servers, removed], (removed,)
    return servers, ()


def _nothing(_server_name: str) -> bool:
    """A position is reached, with nothing for anybody."""
    return False


def _log_given_up(cut: asyncio.Future[int], destination: str | None = None) -> None:
    """The outbox was cut: whatever that cost is never lost in silence."""
    if not cut.cancelled() and cut.exception() is None and cut.result():
        _log.warning("EDUs given up", destination=destination or "several", edus=cut.result())
