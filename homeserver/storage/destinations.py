"""The servers this one sends to: what they have got, and when to try again those that fail."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class Destination(msgspec.Struct, frozen=True, gc=False):
    """How far a server has been sent to; ``retry_at`` in ms since the epoch, 0 for one that works."""

    server_name: str
    sent_pos: int
    failures: int = 0
    retry_at: int = 0


_DESTINATION = "SELECT server_name, sent_pos, failures, retry_at FROM destinations"


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
        """INSERT INTO destinations (server_name, sent_pos, failures, retry_at) VALUES ($1, $2, $3, $4)
           ON CONFLICT (server_name) DO UPDATE SET
               sent_pos = excluded.sent_pos, failures = excluded.failures, retry_at = excluded.retry_at""",
        destination.server_name,
        destination.sent_pos,
        destination.failures,
        destination.retry_at,
    )


async def advance(tx: Transaction, pos: int) -> None:
    """All destinations that work have been sent everything up to ``pos``."""
    await tx.execute("UPDATE destinations SET sent_pos = $1 WHERE failures = 0 AND sent_pos < $1", pos)
