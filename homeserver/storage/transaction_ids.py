"""What clients' transaction ids led to (client-server API, "Transaction identifiers").

A transaction id counts within one device and one ``scope``: the endpoint with what
it was called for, such as the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from homeserver.storage.database import Reader, Transaction
from homeserver.storage.rows import Rows

#: ``(user_id, device_id, scope, txn_id)``.
Key: TypeAlias = tuple[str, str, str, str]

#: So that nobody who sends meanwhile waits for it.
_FORGOTTEN_AT_ONCE = 1_000

_ADD = """
    INSERT INTO transaction_ids (user_id, device_id, scope, txn_id, event_id, created_at)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, device_id, scope, txn_id) DO NOTHING
"""
_ADD_OF_EVENT = """
    INSERT INTO event_transactions (event_nid, device_id, txn_id)
    VALUES ($1, $2, $3) ON CONFLICT (event_nid) DO NOTHING
"""


class SentAs(msgspec.Struct, frozen=True, gc=False):
    """A work: remember what a transaction led to; the first one counts."""

    user_id: str
    device_id: str
    scope: str
    txn_id: str
    event_id: str
    #: In milliseconds since the epoch.
    now: int

    async def __call__(self, tx: Transaction) -> None:
        await tx.execute(_ADD, *msgspec.structs.astuple(self))
        nid = await tx.fetch_value("SELECT event_nid FROM events WHERE event_id = $1", self.event_id)
        if nid is not None:
            await tx.execute(_ADD_OF_EVENT, nid, self.device_id, self.txn_id)


def rows(sent: Sequence[tuple[SentAs, int]]) -> list[Rows]:
    """The same for many that led to events whose ``event_nid`` is known."""
    return [
        Rows(_ADD, [msgspec.structs.astuple(one) for one, _ in sent]),
        Rows(_ADD_OF_EVENT, [(nid, one.device_id, one.txn_id) for one, nid in sent]),
    ]


async def event_id(r: Reader, user_id: str, device_id: str, scope: str, txn_id: str) -> str | None:
    """The event an earlier request of the same transaction made."""
    found: str | None = await r.fetch_value(
        """
        SELECT event_id FROM transaction_ids
        WHERE user_id = $1 AND device_id = $2 AND scope = $3 AND txn_id = $4
        """,
        user_id,
        device_id,
        scope,
        txn_id,
    )
    return found


async def of_device(r: Reader, user_id: str, device_id: str, *, limit: int) -> list[tuple[str, str]]:
    """Up to ``limit`` transactions of a device that made something: scope and transaction id."""
    rows = await r.fetch(
        """
        SELECT scope, txn_id FROM transaction_ids
        WHERE user_id = $1 AND device_id = $2 AND event_id <> '' LIMIT $3
        """,
        user_id,
        device_id,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def of_events(r: Reader, device_id: str, nids: Sequence[int]) -> dict[int, str]:
    """The transaction ids by which one device of their sender sent events, by ``event_nid``."""
    rows = await r.fetch_in(
        "SELECT event_nid, txn_id FROM event_transactions WHERE event_nid IN $1 AND device_id = $2",
        nids,
        device_id,
    )
    return {row[0]: row[1] for row in rows}


async def add(
    tx: Transaction, user_id: str, device_id: str, scope: str, txn_id: str, *, event_id: str, now: int
) -> None:
    """Remember what a transaction led to; the first one counts."""
    await SentAs(user_id, device_id, scope, txn_id, event_id, now)(tx)


async def older(r: Reader, before: int, after: Key | None = None) -> list[Key]:
    """Transactions from before a time, in the order of their keys, a share of them from ``after`` on.

    There is no index for it, which each message would pay for: it goes through all of the day that is kept.
    """
    rows = await r.fetch(
        """SELECT user_id, device_id, scope, txn_id FROM transaction_ids
           WHERE (user_id, device_id, scope, txn_id) > ($2, $3, $4, $5) AND created_at < $1
           ORDER BY user_id, device_id, scope, txn_id LIMIT $6""",
        before,
        *(after or ("", "", "", "")),
        _FORGOTTEN_AT_ONCE,
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def remove(tx: Transaction, keys: Sequence[Key]) -> None:
    """Forget transactions; the events they led to stay."""
    await tx.execute_many(
        """DELETE FROM event_transactions WHERE event_nid = (
               SELECT e.event_nid FROM events e JOIN transaction_ids t ON t.event_id = e.event_id
               WHERE t.user_id = $1 AND t.device_id = $2 AND t.scope = $3 AND t.txn_id = $4)""",
        keys,
    )
    await tx.execute_many(
        "DELETE FROM transaction_ids WHERE user_id = $1 AND device_id = $2 AND scope = $3 AND txn_id = $4",
        keys,
    )
