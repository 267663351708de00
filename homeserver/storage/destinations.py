"""The servers this one sends to: what they have got, and when to try again those that fail."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class Destination(msgspec.Struct, frozen=True, gc=False):
    """How far a server has been sent to; ``retry_at`` in ms since the epoch, 0 for one that works."""

    server_name: str
    #: Events this server sent up to here have been delivered.
    sent_pos: int
    failures: int = 0
    retry_at: int = 0
    #: Receipts up to here have been delivered.
    receipts_pos: int = 0
    #: After a long absence, rooms whose newest event is at or before this have been caught up with.
    caught_up_pos: int = 0
    #: When the first of its failures in a row was, in ms since the epoch.
    failing_since: int = 0


_DESTINATION = """
    SELECT server_name, sent_pos, failures, retry_at, receipts_pos, caught_up_pos, failing_since
    FROM destinations
"""


async def get(r: Reader, server_name: str) -> Destination | None:
    """A destination, ``None`` for one that nothing was ever sent to."""
    row = await r.fetch_row(f"{_DESTINATION} WHERE server_name = $1", server_name)
    return Destination(*row) if row else None


async def everyone(r: Reader) -> list[Destination]:
    """Every destination."""
    return [Destination(*row) for row in await r.fetch(_DESTINATION)]


async def put(tx: Transaction, destination: Destination) -> None:
    """Store a destination."""
    await tx.execute(
        """INSERT INTO destinations (server_name, sent_pos, failures, retry_at,
                                     receipts_pos, caught_up_pos, failing_since)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (server_name) DO UPDATE SET
               sent_pos = excluded.sent_pos, failures = excluded.failures, retry_at = excluded.retry_at,
               receipts_pos = excluded.receipts_pos, caught_up_pos = excluded.caught_up_pos,
               failing_since = excluded.failing_since""",
        destination.server_name,
        destination.sent_pos,
        destination.failures,
        destination.retry_at,
        destination.receipts_pos,
        destination.caught_up_pos,
        destination.failing_since,
    )


async def advance(tx: Transaction, pos: int) -> None:
    """All destinations that work have been sent everything up to ``pos``."""
    await tx.execute(
        """UPDATE destinations SET sent_pos = $1, receipts_pos = $1, caught_up_pos = 0
           WHERE failures = 0 AND sent_pos <= $1 AND receipts_pos <= $1""",
        pos,
    )
