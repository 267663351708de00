"""EDUs that have to arrive, in order, until their destination has acknowledged them."""

from __future__ import annotations

from collections.abc import Iterable

from homeserver.storage.database import Reader, Transaction


async def add(tx: Transaction, edus: Iterable[tuple[str, int, bytes]]) -> None:
    """Put ``(destination, pos, edu)`` into the outbox."""
    await tx.execute_many("INSERT INTO outbox (destination, pos, edu) VALUES ($1, $2, $3)", edus)


async def oldest(r: Reader, destination: str, limit: int) -> list[tuple[int, bytes]]:
    """``(pos, edu)`` of the oldest EDUs for a destination."""
    rows = await r.fetch(
        "SELECT pos, edu FROM outbox WHERE destination = $1 ORDER BY pos LIMIT $2", destination, limit
    )
    return [(row[0], row[1]) for row in rows]


async def remove_upto(tx: Transaction, destination: str, pos: int) -> None:
    """The destination has everything up to ``pos``."""
    await tx.execute("DELETE FROM outbox WHERE destination = $1 AND pos <= $2", destination, pos)


async def remove_oldest(tx: Transaction, destination: str, keep: int) -> int:
    """Leave only the newest ``keep`` EDUs for a destination; how many were given up."""
    return await tx.execute(
        """DELETE FROM outbox WHERE destination = $1 AND pos <= (
               SELECT pos FROM outbox WHERE destination = $1 ORDER BY pos DESC LIMIT 1 OFFSET $2)""",
        destination,
        keep,
    )


async def destinations(r: Reader) -> list[str]:
    """The destinations that something is waiting for."""
    return [row[0] for row in await r.fetch("SELECT DISTINCT destination FROM outbox")]
