"""What waits for one destination, and how it becomes transactions: no I/O here.

Specification: server-server API, "Transactions" (at most 50 PDUs and 100 EDUs).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.protocol.canonical_json import encode

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100

#: Events waiting in memory; when there are more, they are read from storage instead.
MAX_WAITING_EVENTS: Final = 1000
MAX_WAITING_EDUS: Final = 500

_FIRST_DELAY_MS: Final = 5_000
_LONGEST_DELAY_MS: Final = 6 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that is on its way until it is acknowledged."""

    transaction_id: str
    body: bytes
    #: What the destination has of events and of the outbox once it has this; ``None``: nothing new.
    sent_pos: int | None
    outbox_pos: int | None


@dataclass(slots=True)
class Outgoing:
    """Everything that waits for one destination."""

    server_name: str
    #: Events up to here have been delivered.
    sent_pos: int
    failures: int = 0
    retry_at_ms: int = 0
    #: Whether it is certain that the destination has a stored record.
    known: bool = False
    #: Whether that record says that it fails.
    stored_as_failing: bool = False
    #: ``(pos, event_nid)``, oldest first: all there is after ``sent_pos`` unless ``behind``.
    events: deque[tuple[int, int]] = field(default_factory=deque)
    #: Events after ``sent_pos`` have to be read from storage.
    behind: bool = False
    #: EDUs that may be lost, as canonical JSON, by what a newer one replaces.
    edus: OrderedDict[Hashable, bytes] = field(default_factory=OrderedDict)
    #: Something is, or may be, in the outbox.
    outbox: bool = False
    on_its_way: Transaction | None = None
    tried_at: float = 0.0
    worker: asyncio.Task[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether there may be something to send."""
        return bool(self.on_its_way or self.events or self.behind or self.edus or self.outbox)

    @property
    def all_delivered(self) -> bool:
        """Whether no event waits."""
        return not (self.on_its_way or self.events or self.behind)

    def add_event(self, pos: int, nid: int) -> None:
        """An event to be sent; one that fails is not given more to remember."""
        if self.behind or self.failures or len(self.events) >= MAX_WAITING_EVENTS:
            self.fall_behind()
        else:
            self.events.append((pos, nid))

    def fall_behind(self) -> None:
        """Forget which events wait: they will be read from storage."""
        self.events.clear()
        self.behind = True

    def add_edu(self, edu_type: str, content: Mapping[str, Any], edu: bytes) -> None:
        """An EDU that may be lost: dropped for a destination that is down, the oldest when there are many."""
        if self.failures:
            return
        key = coalescing_key(edu_type, content)
        self.edus.pop(key, None)
        self.edus[key] = edu
        if len(self.edus) > MAX_WAITING_EDUS:
            self.edus.popitem(last=False)

    def take_edus(self, limit: int) -> list[bytes]:
        """The oldest EDUs that may be lost."""
        return [self.edus.popitem(last=False)[1] for _ in range(min(limit, len(self.edus)))]

    def failed(self, now_ms: int, jitter: float) -> None:
        """An attempt failed; ``jitter`` between 0 and 1 spreads the next ones."""
        self.failures += 1
        self.retry_at_ms = now_ms + back_off_ms(self.failures, jitter)
        self.edus.clear()

    def works(self) -> None:
        """The destination answered, or spoke to this server."""
        self.failures = 0
        self.retry_at_ms = 0


def back_off_ms(failures: int, jitter: float) -> int:
    """How long to leave a destination alone after so many failures in a row."""
    tripled: int = 3 ** min(failures - 1, 20)
    return round(min(_FIRST_DELAY_MS * tripled, _LONGEST_DELAY_MS) * (0.8 + 0.4 * jitter))


def coalescing_key(edu_type: str, content: Mapping[str, Any]) -> Hashable:
    """What an EDU is about: a newer one about the same replaces it."""
    match edu_type:
        case "m.typing":
            return edu_type, content.get("room_id"), content.get("user_id")
        case "m.presence":
            updates = content.get("push", ())
            return edu_type, tuple(sorted(str(update.get("user_id")) for update in updates))
        case "m.receipt":
            about = (
                (room_id, receipt_type, user_id)
                for room_id, receipts in content.items()
                for receipt_type, users in receipts.items()
                for user_id in users
            )
            return edu_type, tuple(sorted(about))
        case _:
            return object()


def edu_json(edu_type: str, content: Mapping[str, Any]) -> bytes:
    """An EDU as canonical JSON."""
    return encode({"content": content, "edu_type": edu_type})


def transaction_json(origin: str, now_ms: int, pdus: Sequence[bytes], edus: Sequence[bytes]) -> bytes:
    """The body of a transaction as canonical JSON, from parts that are canonical JSON."""
    return b'{"edus":[%b],"origin":%b,"origin_server_ts":%d,"pdus":[%b]}' % (
        b",".join(edus),
        encode(origin),
        now_ms,
        b",".join(pdus),
    )
