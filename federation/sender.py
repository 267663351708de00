"""Sends this server's events and EDUs to the other servers in its rooms.

Each destination with news has a task that sends one transaction after another.  What
was delivered is a position per destination, stored now and then: after a restart,
or when a destination was away, what it lacks is read from storage.  A destination that
fails is left alone for longer and longer, until it speaks to this server.
Specification: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import structlog

from federation.outgoing import MAX_EDUS, MAX_PDUS, Outgoing, Transaction, edu_json, transaction_json
from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage import destinations, outbox
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.database import Transaction as Write
from homeserver.storage.destinations import Destination
from homeserver.storage.events import SENT_HERE
from homeserver.storage.numbers import Sequence as NumberSequence

_log = structlog.get_logger()

#: More missed events than this are not all sent: each room's newest is, and the peer asks for the rest.
MAX_CAUGHT_UP: Final = 500
#: EDUs kept for a destination that is down.
MAX_OUTBOX: Final = 10_000

_PAGE: Final = 500
_TICK_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 60.0
#: Even a destination that speaks to this server is not tried again sooner than this after a failure.
_CONTACT_SECONDS: Final = 2.0
#: An unanswered transaction is sent again as it is so often, then a new one is made.
_SAME_AGAIN: Final = 3
_CLOSE_SECONDS: Final = 5.0


class SendsTransactions(Protocol):
    """Delivers transactions (``FederationClient``)."""

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        """What became of each PDU; raises ``RemoteError``."""
        ...


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
    ) -> None:
        self._db = db
        self._events = events
        self._client = client
        self._outbox_positions = outbox_positions
        self._clock = clock
        self._server_name = server_name
        self._allows = allows
        self._outgoing: dict[str, Outgoing] = {}
        #: Every event up to here has been given to those it is for.
        self._position = 0
        self._transactions = 0
        self._stored_at = clock.monotonic()
        self._started_ms = clock.now_ms()
        self._ticking: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, position: int) -> None:
        """Find out what destinations lack of events up to ``position``, and begin to send."""
        self._position = position
        healthy: dict[str, int] = {}
        for row in await destinations.everyone(self._db.scan):
            if row.failures:
                self._outgoing[row.server_name] = _outgoing(row)
            else:
                healthy[row.server_name] = row.sent_pos
        await self._find_unsent(healthy)
        for server_name in await outbox.destinations(self._db.scan):
            self._of(server_name).outbox = True
        for outgoing in list(self._outgoing.values()):
            self._wake(outgoing)
        self._ticking = asyncio.create_task(self._tick_forever(), name="federation sender")

    def new_events(self, news: NewEvents) -> None:
        """Queue those of the events that this server sends, for every server they are for."""
        self._position = max(self._position, news.pos)
        for stored in news.events:
            if stored.flags & SENT_HERE and stored.pos is not None:
                for server_name in self._destinations(news.room, stored.event):
                    outgoing = self._of(server_name, before=stored.pos)
                    outgoing.add_event(stored.pos, stored.nid)
                    self._wake(outgoing)

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        """Queue one EDU; returns at once.  A ``durable`` one is kept until the server has it."""
        if destination == self._server_name or not self._allows(destination):
            return
        edu = edu_json(edu_type, content)
        if durable:
            row = (destination, self._outbox_positions.next(), edu)
            self._db.write(partial(outbox.add, edus=[row])).add_done_callback(
                lambda written: self._in_outbox(destination, written)
            )
            return
        outgoing = self._of(destination)
        outgoing.add_edu(edu_type, content, edu)
        self._wake(outgoing)

    def peer_is_alive(self, server_name: str) -> None:
        """A server spoke to this one: whatever failed before is tried again, at once or nearly so."""
        outgoing = self._outgoing.get(server_name)
        if outgoing is None or not outgoing.failures:
            return
        too_early = outgoing.tried_at + _CONTACT_SECONDS - self._clock.monotonic()
        if too_early > 0:
            retry_at_ms = self._clock.now_ms() + round(too_early * 1000)
            outgoing.retry_at_ms = min(outgoing.retry_at_ms, retry_at_ms)
            return
        outgoing.works()
        self._wake(outgoing)

    def tick(self) -> None:
        """Try again those whose time has come; called every second."""
        for outgoing in list(self._outgoing.values()):
            if outgoing.failures:
                self._wake(outgoing)
        if self._clock.monotonic() >= self._stored_at + _STORE_SECONDS:
            self._store_positions()

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
        return [each.worker for each in self._outgoing.values() if each.worker is not None]

    def _in_outbox(self, destination: str, written: asyncio.Future[None]) -> None:
        if written.cancelled() or written.exception() is not None:
            _log.error("EDU could not be stored", destination=destination)
            return
        outgoing = self._of(destination)
        outgoing.outbox = True
        self._wake(outgoing)

    def _destinations(self, room: Room, event: Event) -> set[str]:
        """The servers in the room, and the one whose user has just been removed from it.

        Not the sender's: where it is not this one, it has the event.
        """
        servers = set(room.servers)
        if event.type == MEMBER and event.content.get("membership") in ("leave", "ban"):
            servers.add(server_of(event.state_key or ""))
        servers -= {self._server_name, server_of(event.sender), ""}
        return {server for server in servers if self._allows(server)}

    def _of(self, server_name: str, before: int | None = None) -> Outgoing:
        outgoing = self._outgoing.get(server_name)
        if outgoing is None:
            sent_pos = self._position if before is None else before - 1
            outgoing = self._outgoing[server_name] = Outgoing(server_name, sent_pos)
        return outgoing

    def _is_due(self, outgoing: Outgoing) -> bool:
        return not self._closing and outgoing.has_news and self._clock.now_ms() >= outgoing.retry_at_ms

    def _wake(self, outgoing: Outgoing) -> None:
        if outgoing.worker is None and self._is_due(outgoing):
            outgoing.worker = asyncio.create_task(
                self._work(outgoing), name=f"sending to {outgoing.server_name}"
            )

    async def _work(self, outgoing: Outgoing) -> None:
        """Send until there is nothing to send, or the destination fails."""
        try:
            if not outgoing.known:
                await self._introduce(outgoing)
            while self._is_due(outgoing):
                if outgoing.on_its_way is None:
                    outgoing.on_its_way = await self._next_transaction(outgoing)
                if outgoing.on_its_way is not None:
                    await self._deliver(outgoing, outgoing.on_its_way)
        except Exception:
            _log.exception("sending failed", destination=outgoing.server_name)
            outgoing.fall_behind()
            outgoing.failed(self._clock.now_ms(), random.random())
        finally:
            outgoing.worker = None
        if not outgoing.has_news and not outgoing.failures:
            self._outgoing.pop(outgoing.server_name, None)

    async def _introduce(self, outgoing: Outgoing) -> None:
        """Store a destination that is new: it starts with what is sent now."""
        outgoing.known = True
        if await destinations.get(self._db.read, outgoing.server_name) is None:
            await self._db.write(partial(destinations.put, destination=_row(outgoing)))

    async def _next_transaction(self, outgoing: Outgoing) -> Transaction | None:
        if outgoing.behind:
            await self._catch_up(outgoing)
        events = [outgoing.events.popleft() for _ in range(min(MAX_PDUS, len(outgoing.events)))]
        # Before the outbox is read: what is added meanwhile sets it again.
        outgoing.outbox, has_outbox = False, outgoing.outbox
        edus: list[tuple[int, bytes]] = []
        if has_outbox:
            edus = await outbox.oldest(self._db.scan, outgoing.server_name, MAX_EDUS)
            outgoing.outbox = outgoing.outbox or len(edus) == MAX_EDUS
        stored = await self._events.by_nids([nid for _, nid in events])
        pdus = [stored[nid].event.json for _, nid in events if nid in stored]
        all_edus = [edu for _, edu in edus] + outgoing.take_edus(MAX_EDUS - len(edus))
        if not pdus and not all_edus:
            return None
        self._transactions += 1
        return Transaction(
            transaction_id=f"{self._started_ms}-{self._transactions}",
            body=transaction_json(self._server_name, self._clock.now_ms(), pdus, all_edus),
            sent_pos=events[-1][0] if events else None,
            outbox_pos=edus[-1][0] if edus else None,
        )

    async def _deliver(self, outgoing: Outgoing, transaction: Transaction) -> None:
        outgoing.tried_at = self._clock.monotonic()
        try:
            results = await self._client.send_transaction(
                outgoing.server_name, transaction.transaction_id, transaction.body
            )
        except RemoteError as error:
            if error.status in (400, 413):
                _log.warning("transaction refused", destination=outgoing.server_name, reason=error.message)
            else:
                await self._failed(outgoing, error)
                return
        else:
            _log_refused(outgoing.server_name, results)
        await self._delivered(outgoing, transaction)

    async def _delivered(self, outgoing: Outgoing, transaction: Transaction) -> None:
        outgoing.works()
        outgoing.on_its_way = None
        if transaction.sent_pos is not None:
            outgoing.sent_pos = transaction.sent_pos
        row, outbox_pos = _row(outgoing), transaction.outbox_pos
        if outbox_pos is None and not outgoing.stored_as_failing:
            return
        outgoing.stored_as_failing = False

        async def store(tx: Write) -> None:
            if outbox_pos is not None:
                await outbox.remove_upto(tx, row.server_name, outbox_pos)
            await destinations.put(tx, row)

        await self._db.write(store)

    async def _failed(self, outgoing: Outgoing, error: RemoteError) -> None:
        outgoing.failed(self._clock.now_ms(), random.random())
        _log.info(
            "destination fails",
            destination=outgoing.server_name,
            failures=outgoing.failures,
            reason=error.message,
        )
        if outgoing.failures >= _SAME_AGAIN and outgoing.on_its_way is not None:
            outgoing.outbox = outgoing.outbox or outgoing.on_its_way.outbox_pos is not None
            outgoing.on_its_way = None
            outgoing.fall_behind()
        row = _row(outgoing)
        outgoing.stored_as_failing = True

        async def store(tx: Write) -> None:
            await destinations.put(tx, row)
            await outbox.remove_oldest(tx, row.server_name, MAX_OUTBOX)

        await self._db.write(store)

    async def _catch_up(self, outgoing: Outgoing) -> None:
        """Queue the events that the destination lacks, of the rooms it is in now."""
        outgoing.behind = False
        outgoing.events.clear()
        upto = self._position
        rooms = set(await room_storage.rooms_of_server(self._db.scan, outgoing.server_name))
        missed: list[tuple[int, int]] = []
        newest: dict[int, tuple[int, int]] = {}
        after = outgoing.sent_pos
        while page := await event_storage.sent_here_after(self._db.scan, after, upto, _PAGE):
            after = page[-1][0]
            for pos, nid, room_nid in page:
                if room_nid in rooms:
                    newest[room_nid] = (pos, nid)
                    if len(missed) <= MAX_CAUGHT_UP:
                        missed.append((pos, nid))
        found = missed if len(missed) <= MAX_CAUGHT_UP else sorted(newest.values())
        outgoing.events.extendleft(reversed(found))
        if not found:
            outgoing.sent_pos = max(outgoing.sent_pos, upto)

    async def _find_unsent(self, sent: Mapping[str, int]) -> None:
        """Queue what was sent here after the position of each destination, in one pass for all of them."""
        after = min(sent.values(), default=self._position)
        servers: dict[int, list[str]] = {}
        counts: defaultdict[str, int] = defaultdict(int)
        while page := await event_storage.sent_here_after(self._db.scan, after, self._position, _PAGE):
            after = page[-1][0]
            for pos, nid, room_nid in page:
                if room_nid not in servers:
                    servers[room_nid] = list(await room_storage.servers(self._db.scan, room_nid))
                for server in servers[room_nid]:
                    if pos > sent.get(server, pos):
                        counts[server] += 1
                        self._of(server, before=sent[server] + 1).add_event(pos, nid)
        if counts:
            _log.info("events to send from before", destinations=len(counts), events=sum(counts.values()))

    def _store_positions(self) -> asyncio.Future[None]:
        """Store how far each destination is: those with nothing waiting have everything."""
        self._stored_at = self._clock.monotonic()
        position = self._position
        busy: list[Destination] = []
        for each in self._outgoing.values():
            if each.failures or not each.all_delivered:
                busy.append(_row(each))
            elif each.stored_as_failing:
                each.stored_as_failing = False
                busy.append(Destination(each.server_name, position))

        async def store(tx: Write) -> None:
            await destinations.advance(tx, position)
            for row in busy:
                await destinations.put(tx, row)

        return self._db.write(store)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tick()


def _outgoing(row: Destination) -> Outgoing:
    return Outgoing(
        row.server_name,
        row.sent_pos,
        failures=row.failures,
        retry_at_ms=row.retry_at,
        known=True,
        stored_as_failing=True,
        behind=True,
    )


def _row(outgoing: Outgoing) -> Destination:
    return Destination(outgoing.server_name, outgoing.sent_pos, outgoing.failures, outgoing.retry_at_ms)


def _log_refused(destination: str, results: Mapping[str, Any]) -> None:
    for event_id, result in results.items():
        if isinstance(result, dict) and "error" in result:
            reason = result["error"]
            _log.info("event refused by peer", destination=destination, event_id=event_id, reason=reason)
