"""What waits for one destination, and how it becomes transactions: no I/O here.

Specification: server-server API, "Transactions" (at most 50 PDUs and 100 EDUs).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from federation.waiting_edus import WaitingEdus, WaitingReceipts
from homeserver.protocol.canonical_json import encode
from homeserver.storage.destinations import Destination
from homeserver.storage.stays import RoomNews

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100
#: Bytes of EDUs in one transaction, unless a single one is larger.
MAX_EDU_BYTES: Final = 1024 * 1024

#: Events waiting in memory; when there are more, they are read from storage instead.
MAX_WAITING_EVENTS: Final = 1000

#: A transaction that failed is kept as it is up to this size; a larger one is made again from storage.
_MAX_KEPT_BYTES: Final = 16 * 1024
#: An unanswered transaction is sent again as it is so often, then a new one is made.
_SAME_AGAIN: Final = 3

_FIRST_DELAY_MS: Final = 5_000
_LONGEST_DELAY_MS: Final = 24 * 3600 * 1000
#: The longest that a destination may tell this server to stay away for.
_LONGEST_REQUESTED_MS: Final = 3600 * 1000
#: One that speaks to this server is tried no sooner than this after a failure, and a bit later each time.
_CONTACT_SECONDS: Final = 2.0
_LONGEST_CONTACT_SECONDS: Final = 64.0
_FORGOTTEN_SECONDS: Final = 600.0


class Progress(msgspec.Struct, frozen=True):
    """What a destination has once it has a transaction; ``None``: nothing new of that kind."""

    sent_pos: int | None = None
    caught_up_pos: int | None = None
    receipts_pos: int | None = None
    outbox_pos: int | None = None


class Transaction(msgspec.Struct, frozen=True):
    """A transaction that is on its way until it is acknowledged."""

    transaction_id: str
    body: bytes
    #: How many PDUs and EDUs it holds.
    size: int
    #: Whether there are EDUs among them that are not worth sending later.
    fleeting: bool
    progress: Progress
    #: Those of the events that were taken from ``Outgoing.sticky``.
    sticky: tuple[int, ...] = ()


class Outgoing(msgspec.Struct):
    """Everything that waits for one destination."""

    server_name: str
    #: Events, and receipts, up to here have been delivered.
    sent_pos: int
    receipts_pos: int
    #: See ``storage/destinations.py``.
    caught_up_pos: int = 0
    failures: int = 0
    retry_at_ms: int = 0
    failing_since_ms: int = 0
    #: Whether the stored record says that it fails.
    stored_as_failing: bool = False
    #: ``(pos, event_nid)``, oldest first: all there is after ``sent_pos`` unless ``behind``.
    events: deque[tuple[int, int]] = msgspec.field(default_factory=deque)
    #: Events after ``sent_pos`` have to be read from storage.
    behind: bool = False
    #: Events that stick, whatever else it has been sent (MSC4354).
    sticky: deque[int] = msgspec.field(default_factory=deque)
    #: After a long absence: the newest events of rooms, the longest quiet first, up to ``catch_up_to``.
    newest: deque[RoomNews] = msgspec.field(default_factory=deque)
    catch_up_to: int = 0
    #: The note that an event is for it although it is not in the room, on its way to the disk.
    owed: asyncio.Future[None] | None = None
    receipts: WaitingReceipts = msgspec.field(default_factory=WaitingReceipts)
    #: Receipts after ``receipts_pos`` have to be read from storage.
    receipts_behind: bool = False
    #: EDUs that may be lost.
    edus: WaitingEdus = msgspec.field(default_factory=WaitingEdus)
    #: Something is, or may be, in the outbox.
    outbox: bool = False
    #: EDUs put into the outbox since it was last cut.
    outbox_added: int = 0
    on_its_way: Transaction | None = None
    #: How many PDUs, and EDUs, a transaction may hold: fewer after one was refused, to find out which.
    at_most: int = MAX_EDUS
    tried_at: float = -_LONGEST_CONTACT_SECONDS
    #: How often it was tried because it spoke, without success; whether it spoke while it was tried.
    contacts: int = 0
    spoke: bool = False
    worker: asyncio.Task[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether there may be something to send."""
        return bool(not self.all_delivered or self.edus or self.outbox)

    @property
    def all_delivered(self) -> bool:
        """Whether neither event nor receipt waits."""
        waits = self.on_its_way or self.events or self.behind or self.newest or self.receipts or self.sticky
        return not (waits or self.receipts_behind or self.caught_up_pos)

    @property
    def single(self) -> bool:
        """Whether a transaction may hold no more than one thing."""
        return self.at_most == 1

    def add_event(self, pos: int, nid: int) -> None:
        """An event to be sent; one that fails is not given more to remember."""
        if self.behind or pos <= max(self.sent_pos, self.events[-1][0] if self.events else 0):
            return  # what is read from storage holds it
        if self.failures or len(self.events) >= MAX_WAITING_EVENTS:
            self.fall_behind()
        else:
            self.events.append((pos, nid))

    def add_sticky(self, event_nids: Iterable[int]) -> None:
        """Events that stick, to be sent whatever else it has."""
        waiting = set(self.sticky)
        self.sticky.extend(nid for nid in dict.fromkeys(event_nids) if nid not in waiting)

    def add_receipt(self, pos: int, room_id: str, user_id: str, thread_id: str, said: object) -> None:
        """A receipt to be sent, in place of an older one that waits."""
        if self.receipts_behind:
            return
        if self.failures or not self.receipts.add(pos, room_id, user_id, thread_id, said):
            self.receipts.clear()
            self.receipts_behind = True

    def fall_behind(self) -> None:
        """Forget which events wait: they will be read from storage."""
        self.events.clear()
        self.newest.clear()
        self.catch_up_to = 0
        self.behind = True

    def forget_on_its_way(self) -> None:
        """Make transactions anew, from storage."""
        if self.on_its_way is not None:
            self.sticky.extendleft(reversed(self.on_its_way.sticky))
        self.on_its_way = None
        self.outbox = self.receipts_behind = True
        self.receipts.clear()
        self.fall_behind()

    def accepted(self, progress: Progress) -> None:
        """The destination has taken the transaction that was on its way."""
        self.on_its_way = None
        self.at_most = min(self.at_most * 2, MAX_EDUS)
        self.contacts = 0
        self.spoke = False
        self.advance(progress)
        self.works()

    def advance(self, progress: Progress) -> None:
        """There is nothing more to be sent up to here."""
        if progress.sent_pos is not None:
            self.sent_pos = progress.sent_pos
        if progress.caught_up_pos is not None:
            self.caught_up_pos = progress.caught_up_pos
        if progress.receipts_pos is not None:
            self.receipts_pos = progress.receipts_pos

    def failed(self, now_ms: int, jitter: float, retry_after_ms: int | None = None) -> None:
        """An attempt failed; ``jitter`` between 0 and 1 spreads the next ones.

        ``retry_after_ms`` is how long the destination asked to be left alone for.
        """
        if self.spoke:
            self.failures = self.failing_since_ms = 0
        self.failures += 1
        self.spoke = False
        self.failing_since_ms = self.failing_since_ms or now_ms
        asked = min(retry_after_ms or 0, _LONGEST_REQUESTED_MS)
        delay = back_off_ms(now_ms - self.failing_since_ms, jitter)
        self.retry_at_ms = now_ms + max(delay, asked)
        self.edus.clear()
        transaction = self.on_its_way
        if transaction is not None and (
            transaction.fleeting or self.failures >= _SAME_AGAIN or len(transaction.body) > _MAX_KEPT_BYTES
        ):
            self.forget_on_its_way()

    def works(self) -> None:
        """The destination answered, or spoke to this server."""
        self.failures = 0
        self.retry_at_ms = 0
        self.failing_since_ms = 0

    def heard_from(self, now: float) -> float:
        """A destination that fails speaks: how many seconds to wait before it is tried, 0 or less for none.

        It grows with one that only speaks and never listens.
        """
        if now - self.tried_at > _FORGOTTEN_SECONDS:
            self.contacts = 0
        patience = min(_CONTACT_SECONDS * 2.0 ** min(self.contacts, 10), _LONGEST_CONTACT_SECONDS)
        too_early = self.tried_at + patience - now
        if too_early <= 0:
            self.contacts += 1
        return too_early

    def row(self) -> Destination:
        """The record to be stored."""
        return Destination(
            self.server_name,
            self.sent_pos,
            self.failures,
            self.retry_at_ms,
            self.receipts_pos,
            self.caught_up_pos,
            self.failing_since_ms,
        )


def outgoing_from(row: Destination) -> Outgoing:
    """A destination as it was stored, which may lack anything since."""
    return Outgoing(
        row.server_name,
        row.sent_pos,
        row.receipts_pos,
        caught_up_pos=row.caught_up_pos,
        failures=row.failures,
        retry_at_ms=row.retry_at,
        failing_since_ms=row.failing_since,
        stored_as_failing=row.failures > 0,
        behind=True,
        receipts_behind=True,
    )


def back_off_ms(failing_ms: int, jitter: float) -> int:
    """How long to leave a destination alone that has been failing for so long.

    In proportion to that: after minutes it is found to be back within a minute or so, and
    after days it is tried once a day.
    """
    delay = min(max(failing_ms // 3, _FIRST_DELAY_MS), _LONGEST_DELAY_MS)
    return round(delay * (0.8 + 0.4 * jitter))


def transaction_id(parts: Sequence[bytes]) -> str:
    """The id of a transaction that brings these: the same for the same, before and after a restart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:32]


def transaction_json(origin: str, now_ms: int, pdus: Sequence[bytes], edus: Sequence[bytes]) -> bytes:
    """The body of a transaction as canonical JSON, from parts that are canonical JSON."""
    return b'{"edus":[%b],"origin":%b,"origin_server_ts":%d,"pdus":[%b]}' % (
        b",".join(edus),
        encode(origin),
        now_ms,
        b",".join(pdus),
    )
