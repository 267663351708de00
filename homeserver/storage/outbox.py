"""EDUs that have to arrive, in order, until their destination has acknowledged them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class OutboxEdu(msgspec.Struct, frozen=True, gc=False):
    """An EDU on its way, as canonical JSON; ``added_at`` in ms since the epoch."""

    destination: str
    pos: int
    edu: bytes
    added_at: int


async def add(tx: Transaction, edus: Iterable[OutboxEdu]) -> None:
    """Put EDUs into the outbox."""
    await tx.execute_many(
        "INSERT INTO outbox (destination, pos, edu, added_at) VALUES ($1, $2, $3, $4)",
        [(each.destination, each.pos, each.edu, each.added_at) for each in edus],
    )


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


async def remove_older(tx: Transaction, before_ms: int) -> int:
    """Give up the EDUs that were added before a time; how many.  Those of unknown age stay."""
    return await tx.execute("DELETE FROM outbox WHERE added_at > 0 AND added_at < $1", before_ms)


async def destinations(r: Reader) -> list[str]:
    """The destinations that something is waiting for, by one look at the index for each of them."""
    rows = await r.fetch(
        """WITH RECURSIVE waiting (destination) AS (
               SELECT MIN(destination) FROM outbox
               UNION ALL
               SELECT (SELECT MIN(o.destination) FROM outbox o WHERE o.destination > waiting.destination)
               FROM waiting WHERE waiting.destination IS NOT NULL)
           SELECT destination FROM waiting WHERE destination IS NOT NULL"""
    )
    return [row[0] for row in rows]
