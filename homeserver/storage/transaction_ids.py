"""What clients' transaction ids led to (client-server API, "Transaction identifiers").

A transaction id counts within one device and one ``scope``: the endpoint with what
it was called for, such as the room.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.storage.database import Reader, Transaction


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


async def of_events(r: Reader, user_id: str, device_id: str, event_ids: Sequence[str]) -> dict[str, str]:
    """The transaction ids by which one device sent events, by event id."""
    rows = await r.fetch_in(
        """
        SELECT event_id, txn_id FROM transaction_ids
        WHERE event_id IN $1 AND user_id = $2 AND device_id = $3
        """,
        event_ids,
        user_id,
        device_id,
    )
    return {row[0]: row[1] for row in rows}


async def add(
    tx: Transaction, user_id: str, device_id: str, scope: str, txn_id: str, *, event_id: str, now: int
) -> None:
    """Remember the event of a transaction; the first one counts."""
    await tx.execute(
        """
        INSERT INTO transaction_ids (user_id, device_id, scope, txn_id, event_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, device_id, scope, txn_id) DO NOTHING
        """,
        user_id,
        device_id,
        scope,
        txn_id,
        event_id,
        now,
    )


async def remove_older(tx: Transaction, before: int) -> int:
    """Forget transactions from before a time; how many."""
    return await tx.execute("DELETE FROM transaction_ids WHERE created_at < $1", before)
