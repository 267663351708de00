"""Which events relate to which: an index over the events of timelines.

It holds those children that can be shown to somebody; a redacted one is taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import msgspec

from homeserver.protocol.relations import REFERENCE, REPLACE, THREAD, Relation, relation_in, slot_of
from homeserver.storage import events as event_storage
from homeserver.storage.database import Reader, Transaction
from homeserver.storage.events import StoredEvent
from homeserver.storage.rows import Rows

#: Relations are followed so far, the direct ones counted.
MAX_DEPTH = 3

#: The kinds that are aggregated, as SQL.
AGGREGATED = f"('{REFERENCE}', '{REPLACE}', '{THREAD}')"


class Spoken(msgspec.Struct, frozen=True, gc=False):
    """How much has been said in a thread, and when last."""

    root_id: str
    events: int
    latest_pos: int
    #: Whether one of those was the user who asks.
    participated: bool


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Which children of an event are asked for; ``None``: all."""

    rel_type: str | None = None
    type: str | None = None
    #: Those of the children too.
    recurse: bool = False


class Between(msgspec.Struct, frozen=True, gc=False):
    """A page of a timeline: up to ``limit`` events in ``(low, high]``."""

    low: int
    high: int
    limit: int
    backwards: bool = True


_ADD = """
    INSERT INTO relations (event_nid, room_nid, parent_id, rel_type, type, sender, pos, ts, slot)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""


def _relation(one: StoredEvent) -> Relation | None:
    """What is to be put into the index of an event."""
    if one.pos is None or one.hidden or "\0" in one.event.type:
        return None
    return relation_in(one.event)


def _row(one: StoredEvent, relation: Relation) -> tuple[object, ...]:
    return (
        one.nid,
        one.room_nid,
        relation.parent_id,
        relation.rel_type,
        one.event.type,
        one.event.sender,
        one.pos,
        one.event.origin_server_ts,
        slot_of(one.event, relation),
    )


async def add(tx: Transaction, stored: Iterable[StoredEvent]) -> None:
    """Put events that got their place into the index, as far as they relate to others.

    One that is there already is left as it is.
    """
    for one in stored:
        relation = _relation(one)
        if relation is None:
            continue
        added = await tx.execute(_ADD, *_row(one, relation))
        if added and relation.rel_type == THREAD:
            await tx.execute(
                """INSERT INTO threads (room_nid, root_id, sender, events, latest_pos)
                   VALUES ($1, $2, $3, 1, $4)
                   ON CONFLICT (room_nid, root_id, sender) DO UPDATE SET events = threads.events + 1,
                       latest_pos = CASE WHEN excluded.latest_pos > threads.latest_pos
                                         THEN excluded.latest_pos ELSE threads.latest_pos END""",
                one.room_nid,
                relation.parent_id,
                one.event.sender,
                one.pos,
            )


def is_rows(stored: StoredEvent) -> bool:
    """Whether ``rows`` has all that the index keeps of an event; threads are counted besides."""
    relation = _relation(stored)
    return relation is None or relation.rel_type != THREAD


def rows(stored: Iterable[StoredEvent]) -> Rows:
    """The same as ``add``, of events for which ``is_rows`` is true."""
    related = ((one, _relation(one)) for one in stored)
    return Rows(_ADD, [_row(one, relation) for one, relation in related if relation is not None])


async def replace(tx: Transaction, stored: Iterable[StoredEvent]) -> None:
    """The same for events whose place, or whether they are shown, may be another than before."""
    related = [one for one in stored if relation_in(one.event) is not None]
    for one in related:
        await remove(tx, one.nid)
    await add(tx, related)


async def remove(tx: Transaction, event_nid: int) -> None:
    """Take an event out of the index, if it is in there."""
    row = await tx.fetch_row(
        "SELECT room_nid, parent_id, rel_type, sender FROM relations WHERE event_nid = $1", event_nid
    )
    if row is None:
        return
    room_nid, parent_id, rel_type, sender = row
    await tx.execute("DELETE FROM relations WHERE event_nid = $1", event_nid)
    if rel_type != THREAD:
        return
    latest = await tx.fetch_value(
        """SELECT pos FROM relations WHERE room_nid = $1 AND parent_id = $2 AND rel_type = $3
           AND sender = $4 ORDER BY pos DESC LIMIT 1""",
        room_nid,
        parent_id,
        rel_type,
        sender,
    )
    if latest is None:
        await tx.execute(
            "DELETE FROM threads WHERE room_nid = $1 AND root_id = $2 AND sender = $3",
            *(room_nid, parent_id, sender),
        )
        return
    await tx.execute(
        """UPDATE threads SET events = events - 1, latest_pos = $4
           WHERE room_nid = $1 AND root_id = $2 AND sender = $3""",
        *(room_nid, parent_id, sender, latest),
    )


async def fill(tx: Transaction, limit: int) -> bool:
    """Look at the next ``limit`` numbers of events that were stored before there was the index.

    Newest first.  Whether there is more to do.
    """
    upto: int = await tx.fetch_value("SELECT MAX(upto) FROM relations_fill") or 0
    if upto <= 0:
        return False
    await add(tx, await event_storage.placed_between(tx, upto - limit, upto))
    await tx.execute("UPDATE relations_fill SET upto = $1", max(0, upto - limit))
    return upto > limit


async def is_filled(r: Reader) -> bool:
    """Whether every event is in the index that belongs there."""
    return not await r.fetch_value("SELECT MAX(upto) FROM relations_fill")


async def with_children(r: Reader, nids: Sequence[int]) -> set[int]:
    """Those of some events that have children of the kinds that are aggregated."""
    rows = await r.fetch_in(
        f"""SELECT e.event_nid FROM events e WHERE e.event_nid IN $1 AND EXISTS (
                SELECT 1 FROM relations r WHERE r.room_nid = e.room_nid AND r.parent_id = e.event_id
                AND r.rel_type IN {AGGREGATED})""",
        nids,
    )
    return {row[0] for row in rows}


async def newest_in_slots(r: Reader, slots: Sequence[str]) -> dict[str, int]:
    """The newest event of each slot by ``origin_server_ts``, of equally old ones that of the larger id."""
    rows = await r.fetch_in(
        """SELECT slot, event_nid FROM (
               SELECT c.slot, c.event_nid,
                      ROW_NUMBER() OVER (PARTITION BY c.slot ORDER BY e.event_id DESC) AS number
               FROM relations c
               JOIN (SELECT slot, MAX(ts) AS ts FROM relations WHERE slot IN $1 GROUP BY slot) newest
                   ON newest.slot = c.slot AND newest.ts = c.ts
               JOIN events e ON e.event_nid = c.event_nid) numbered
           WHERE number = 1""",
        slots,
    )
    return {row[0]: row[1] for row in rows}


async def in_slot(r: Reader, slot: str, limit: int) -> list[int]:
    """The newest events of one slot, the newest first in the same sense."""
    rows = await r.fetch(
        """SELECT c.event_nid FROM relations c JOIN events e ON e.event_nid = c.event_nid
           WHERE c.slot = $1 ORDER BY c.ts DESC, e.event_id DESC LIMIT $2""",
        slot,
        limit,
    )
    return [row[0] for row in rows]


async def spoken(
    r: Reader, room_nid: int, root_ids: Sequence[str], user_id: str, without: Collection[str]
) -> list[Spoken]:
    """What others than ``without`` have said in some threads, for a user who asks."""
    # Both in one list: what begins an event id begins no user id.
    senders = [sender for sender in without if sender.startswith("@")]
    rows = await r.fetch_in(
        """SELECT root_id, CAST(SUM(events) AS INTEGER), MAX(latest_pos),
                  MAX(CASE WHEN sender = $3 THEN 1 ELSE 0 END)
           FROM threads WHERE room_nid = $2 AND root_id IN $1 AND sender NOT IN $1 GROUP BY root_id""",
        [*root_ids, *senders],
        room_nid,
        user_id,
    )
    return [Spoken(row[0], row[1], row[2], bool(row[3])) for row in rows]


async def at_positions(r: Reader, room_nid: int, positions: Sequence[int]) -> dict[int, int]:
    """The ``event_nid`` at each of some positions of a room."""
    rows = await r.fetch_in(
        "SELECT pos, event_nid FROM events WHERE pos IN $1 AND room_nid = $2", positions, room_nid
    )
    return {row[0]: row[1] for row in rows}


async def references(
    r: Reader, room_nid: int, parent_ids: Sequence[str], limit: int
) -> list[tuple[str, int]]:
    """The newest ``limit`` references to each of some events, oldest first, as ``(parent_id, event_nid)``."""
    rows = await r.fetch_in(
        f"""SELECT parent_id, event_nid FROM (
                SELECT parent_id, event_nid, pos,
                       ROW_NUMBER() OVER (PARTITION BY parent_id ORDER BY pos DESC) AS number
                FROM relations WHERE room_nid = $2 AND parent_id IN $1 AND rel_type = '{REFERENCE}') numbered
            WHERE number <= $3 ORDER BY pos""",
        parent_ids,
        room_nid,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def threads(
    r: Reader, room_nid: int, upto: int, without: Sequence[str], limit: int
) -> list[tuple[str, int]]:
    """The threads last spoken in at or before a position, by others than ``without``: newest first.

    Each as ``(root_id, latest_pos)``.
    """
    # The plus sign keeps the engines from looking through all later threads for the one.
    rows = await r.fetch_in(
        """SELECT t.root_id, t.latest_pos FROM threads t
           WHERE t.sender NOT IN $1 AND t.room_nid = $2 AND t.latest_pos <= $3 AND NOT EXISTS (
               SELECT 1 FROM threads later WHERE later.room_nid = t.room_nid AND later.root_id = t.root_id
               AND +later.latest_pos > t.latest_pos AND later.sender NOT IN $1)
           ORDER BY t.latest_pos DESC LIMIT $4""",
        without,
        room_nid,
        upto,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def children(r: Reader, room_nid: int, parent_id: str, wanted: Wanted, page: Between) -> list[int]:
    """The ``event_nid``s of a page of an event's children."""
    rows = await r.fetch(
        _children_sql(wanted.rel_type is not None, wanted.type is not None, wanted.recurse, page.backwards),
        room_nid,
        parent_id,
        page.low,
        page.high,
        page.limit,
        wanted.rel_type or "",
        wanted.type or "",
    )
    return [row[0] for row in rows]


@lru_cache(maxsize=16)
def _children_sql(by_rel_type: bool, by_type: bool, recurse: bool, backwards: bool) -> str:
    """All parameters are named in every form, since both engines count them."""
    wanted = " AND c.rel_type = $6" if by_rel_type else " AND $6 = ''"
    wanted += " AND c.type = $7" if by_type else " AND $7 = ''"
    order = "DESC" if backwards else "ASC"
    if not recurse:
        return f"""SELECT c.event_nid FROM relations c
                   WHERE c.room_nid = $1 AND c.parent_id = $2 AND c.pos > $3 AND c.pos <= $4 {wanted}
                   ORDER BY c.pos {order} LIMIT $5"""
    return f"""WITH RECURSIVE family (event_nid, pos, depth) AS (
                   SELECT c.event_nid, c.pos, 1 FROM relations c
                   WHERE c.room_nid = $1 AND c.parent_id = $2 {wanted}
                   UNION ALL
                   SELECT c.event_nid, c.pos, f.depth + 1 FROM family f
                   JOIN events e ON e.event_nid = f.event_nid
                   JOIN relations c ON c.room_nid = $1 AND c.parent_id = e.event_id {wanted}
                   WHERE f.depth < {MAX_DEPTH})
               SELECT DISTINCT event_nid, pos FROM family WHERE pos > $3 AND pos <= $4
               ORDER BY pos {order} LIMIT $5"""
