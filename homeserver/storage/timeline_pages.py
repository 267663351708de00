"""What telling events to a device takes beside the events, and pages of timelines with it: a query each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Row
from homeserver.storage.relations import AGGREGATED

_HAS_CHILDREN = f"""EXISTS (
    SELECT 1 FROM relations c WHERE c.room_nid = e.room_nid AND c.parent_id = e.event_id
    AND c.rel_type IN {AGGREGATED})
"""
_TXN_ID = "(SELECT t.txn_id FROM event_transactions t WHERE t.event_nid = e.event_nid AND t.device_id = $2)"


class Told(msgspec.Struct, frozen=True, gc=False):
    """What is told of some events beside what is in them."""

    #: The numbers of those that have children of the kinds that are aggregated.
    parents: set[int]
    #: The transaction ids by which the asking device sent some of them.
    txn_ids: dict[int, str]


class TimelinePage(msgspec.Struct, frozen=True, gc=False):
    """Numbers of timeline events, newest first."""

    nids: list[int]
    told: Told
    #: The newest position, up to the one right above the page, that refers to missing events.
    #: Not known for a page without events.
    gap: int | None


async def told(r: Reader, nids: Sequence[int], device_id: str | None) -> Told:
    """What a device is told of some events."""
    rows = await r.fetch_in(
        f"""
        SELECT event_nid, has_children, txn_id FROM (
            SELECT e.event_nid AS event_nid, {_HAS_CHILDREN} AS has_children, {_TXN_ID} AS txn_id
            FROM events e WHERE e.event_nid IN $1) told
        WHERE has_children OR txn_id IS NOT NULL
        """,
        nids,
        device_id or "",
    )
    return _told(rows)


async def newest_upto(r: Reader, room_nid: int, pos: int, limit: int, device_id: str | None) -> TimelinePage:
    """The newest ``limit`` timeline events at or before ``pos``; hidden ones too."""
    rows = await r.fetch(
        f"""
        SELECT e.event_nid, {_HAS_CHILDREN}, {_TXN_ID},
               (SELECT MAX(m.wanted_by) FROM missing_events m
                WHERE m.room_nid = $1 AND m.wanted_by <= $5)
        FROM events e WHERE e.room_nid = $1 AND e.pos <= $3 ORDER BY e.pos DESC LIMIT $4
        """,
        room_nid,
        device_id or "",
        pos,
        limit,
        pos + 1,
    )
    return TimelinePage([row[0] for row in rows], _told(rows), rows[0][3] if rows else None)


def _told(rows: Sequence[Row]) -> Told:
    return Told(
        parents={row[0] for row in rows if row[1]},
        txn_ids={row[0]: row[2] for row in rows if row[2] is not None},
    )
