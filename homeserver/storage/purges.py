"""Purging: which events are there to be purged, and what becomes of their rows.

The row stays, out of every timeline, so that what builds on the event finds its place in the graph,
and so that nobody brings the event back; of its JSON a husk is left.  State is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage import relations
from homeserver.storage.database import Reader, Transaction
from homeserver.storage.event_json import encode_event_json
from homeserver.storage.events import PURGED
from homeserver.storage.numbers import unpack

#: Refers to no position that is ever looked for: what is missing there is not fetched any more.
_CLOSED = -(1 << 62) - 1


class Husk(msgspec.Struct, frozen=True, gc=False):
    """What is left of an event."""

    nid: int
    json: bytes
    #: Where it was in the timeline, if it was.
    pos: int | None


class RoomPolicy(msgspec.Struct, frozen=True, gc=False):
    """A room, and which event says how long its messages live."""

    room_nid: int
    #: ``event_nid`` of its forward extremities.
    tips: tuple[int, ...]
    event_nid: int | None


async def older_than(r: Reader, room_nid: int, ts: int, limit: int) -> list[int]:
    """``event_nid`` of a room's messages from before a time that are not purged, the oldest first."""
    rows = await r.fetch(
        """SELECT event_nid FROM events
           WHERE room_nid = $1 AND pos IS NOT NULL AND origin_server_ts < $2 AND key_nid IS NULL
           ORDER BY origin_server_ts, pos LIMIT $3""",
        room_nid,
        ts,
        limit,
    )
    if len(rows) < limit:
        rows += await r.fetch(
            f"""SELECT event_nid FROM events
                WHERE room_nid = $1 AND origin_server_ts < $2 AND pos IS NULL AND key_nid IS NULL
                    AND state_before IS NOT NULL AND flags < {PURGED}
                ORDER BY origin_server_ts LIMIT $3""",
            room_nid,
            ts,
            limit - len(rows),
        )
    return [row[0] for row in rows]


async def upto_pos(r: Reader, room_nid: int, pos: int, limit: int) -> list[int]:
    """``event_nid`` of a room's messages at or before a position that are not purged, the oldest first."""
    rows = await r.fetch(
        """SELECT event_nid FROM events WHERE room_nid = $1 AND pos <= $2 AND key_nid IS NULL
           ORDER BY pos LIMIT $3""",
        room_nid,
        pos,
        limit,
    )
    return [row[0] for row in rows]


async def purge(tx: Transaction, room_nid: int, husks: Sequence[Husk]) -> None:
    """Leave husks of some events; what is missing right before them is not asked for any more.

    They relate to nothing any more.
    """
    for husk in husks:
        await relations.remove(tx, husk.nid)
    await tx.execute_many(
        "UPDATE events SET pos = NULL, flags = flags | $2 WHERE event_nid = $1",
        [(husk.nid, PURGED) for husk in husks],
    )
    await tx.execute_many(
        "UPDATE event_json SET json = $2 WHERE event_nid = $1",
        [(husk.nid, encode_event_json(husk.json)) for husk in husks],
    )
    await tx.execute_many(
        "UPDATE missing_events SET wanted_by = $3 WHERE room_nid = $1 AND wanted_by = $2",
        [(room_nid, husk.pos, _CLOSED) for husk in husks if husk.pos is not None],
    )


async def close_gaps(tx: Transaction, room_nid: int, pos: int) -> None:
    """Let nothing be fetched any more that is missing at or before a position."""
    await tx.execute(
        "UPDATE missing_events SET wanted_by = $3 WHERE room_nid = $1 AND wanted_by <= $2 AND wanted_by <> 0",
        room_nid,
        pos,
        _CLOSED,
    )


async def policies(r: Reader, key_nid: int | None, after: int, limit: int) -> list[RoomPolicy]:
    """Rooms after a number, by number, each with its current event of one key."""
    rows = await r.fetch(
        """SELECT r.room_nid, r.tips, c.event_nid FROM rooms r
           LEFT JOIN current_state c ON c.room_nid = r.room_nid AND c.key_nid = $1
           WHERE r.room_nid > $2 AND r.last_pos > 0 ORDER BY r.room_nid LIMIT $3""",
        0 if key_nid is None else key_nid,
        after,
        limit,
    )
    return [RoomPolicy(row[0], unpack(row[1]), row[2]) for row in rows]
