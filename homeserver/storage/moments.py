"""The timeline by time: events in the order of when their servers say they were sent."""

from __future__ import annotations

from typing import Literal

from homeserver.storage.database import Reader
from homeserver.storage.events import REJECTED, SOFT_FAILED

Direction = Literal["f", "b"]


async def closest(
    r: Reader, room_nid: int, direction: Direction, beyond: tuple[int, int], limit: int
) -> list[tuple[int, int, int]]:
    """``(origin_server_ts, pos, event_nid)`` of timeline events, the closest first; hidden ones left out.

    They come after (``f``) or before (``b``) a time and a position, ``beyond``: of the events of
    one time those count as later that are later in the timeline.
    """
    if direction == "f":
        compare, order = ">", "e.origin_server_ts, e.pos"
    else:
        compare, order = "<", "e.origin_server_ts DESC, e.pos DESC"
    rows = await r.fetch(
        f"""SELECT e.origin_server_ts, e.pos, e.event_nid FROM events e
            WHERE e.room_nid = $1 AND e.pos IS NOT NULL AND (e.flags & {REJECTED | SOFT_FAILED}) = 0
              AND (e.origin_server_ts, e.pos) {compare} ($2, $3)
            ORDER BY {order} LIMIT $4""",
        room_nid,
        *beyond,
        limit,
    )
    return [(row[0], row[1], row[2]) for row in rows]
