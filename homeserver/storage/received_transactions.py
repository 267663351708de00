"""What transactions of other servers were answered with, so that a repeated one is answered the same."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction


async def reply(r: Reader, origin: str, transaction_id: str) -> bytes | None:
    """The reply given to a transaction, as JSON; ``None`` for a new one."""
    found: bytes | None = await r.fetch_value(
        "SELECT reply FROM received_transactions WHERE origin = $1 AND transaction_id = $2",
        origin,
        transaction_id,
    )
    return found


async def add(tx: Transaction, origin: str, transaction_id: str, reply: bytes, now_ms: int) -> None:
    """Remember a reply; the first one counts."""
    await tx.execute(
        """INSERT INTO received_transactions (origin, transaction_id, received_at, reply)
           VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING""",
        origin,
        transaction_id,
        now_ms,
        reply,
    )


async def remove_older(tx: Transaction, before_ms: int) -> int:
    """Forget transactions from before a time; how many."""
    return await tx.execute("DELETE FROM received_transactions WHERE received_at < $1", before_ms)
