"""Events that stick for a while (MSC4354): kept beside the events, until they cease to."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class Sticky(msgspec.Struct, frozen=True, gc=False):
    """An event that sticks."""

    event_nid: int
    room_nid: int
    sender: str
    #: From which stream position on clients are told of it; ``None`` while it is soft-failed.
    pos: int | None
    #: In milliseconds since the epoch.
    expires_at: int


async def put(tx: Transaction, sticky: Iterable[Sticky]) -> None:
    """Store them; what is known already gets its position anew."""
    await tx.execute_many(
        """INSERT INTO sticky_events (event_nid, room_nid, sender, pos, expires_at)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (event_nid) DO UPDATE SET pos = excluded.pos""",
        [msgspec.structs.astuple(one) for one in sticky],
    )


async def unexpired(r: Reader, now: int) -> list[Sticky]:
    """All that stick."""
    rows = await r.fetch(
        """SELECT event_nid, room_nid, sender, pos, expires_at FROM sticky_events
           WHERE expires_at > $1 ORDER BY pos, event_nid""",
        now,
    )
    return [Sticky(*row) for row in rows]


async def remove_expired(tx: Transaction, now: int) -> int:
    """Forget what sticks no more; how many that were."""
    return await tx.execute("DELETE FROM sticky_events WHERE expires_at <= $1", now)
