"""Receipts: up to which event users have read each room (client-server API, "Receipts")."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: The thread id of a receipt that is for no thread.
UNTHREADED = ""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One receipt; ``pos`` is the stream position of its last change."""

    user_id: str
    type: str
    #: ``UNTHREADED``, ``main`` or the id of a thread's root.
    thread_id: str
    event_id: str
    #: The timeline position of the event; that of the receipt when the event is not here.
    event_pos: int
    #: Milliseconds since the epoch.
    ts: int
    pos: int


_COLUMNS = "user_id, type, thread_id, event_id, event_pos, ts, pos"
_RECEIPT = f"SELECT {_COLUMNS} FROM receipts"
_IN_ROOM = f"SELECT room_nid, {_COLUMNS} FROM receipts"


async def advance(tx: Transaction, room_nid: int, receipt: Receipt) -> bool:
    """Store a receipt; false, and nothing stored, when it is not ahead of the one there is."""
    return bool(
        await tx.execute(
            """INSERT INTO receipts (room_nid, user_id, type, thread_id, event_id, event_pos, ts, pos)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (room_nid, user_id, type, thread_id) DO UPDATE SET
                   event_id = excluded.event_id, event_pos = excluded.event_pos,
                   ts = excluded.ts, pos = excluded.pos
               WHERE excluded.event_pos > receipts.event_pos""",
            room_nid,
            receipt.user_id,
            receipt.type,
            receipt.thread_id,
            receipt.event_id,
            receipt.event_pos,
            receipt.ts,
            receipt.pos,
        )
    )


async def changed(r: Reader, room_nid: int, after: int, upto: int) -> list[Receipt]:
    """A room's receipts that changed in ``(after, upto]``, oldest change first."""
    rows = await r.fetch(
        f"{_RECEIPT} WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos", room_nid, after, upto
    )
    return [Receipt(*row) for row in rows]


async def of_rooms(r: Reader, room_nids: Sequence[int], upto: int) -> list[tuple[int, Receipt]]:
    """``(room_nid, receipt)`` of some rooms but for what changed after ``upto``, oldest change first."""
    rows = await r.fetch_in(f"{_IN_ROOM} WHERE room_nid IN $1 AND pos <= $2 ORDER BY pos", room_nids, upto)
    return [(row[0], Receipt(*row[1:])) for row in rows]


async def for_server(
    r: Reader, server_name: str, of_server: str, after: int, upto: int, *, limit: int
) -> list[tuple[str, Receipt]]:
    """``(room_id, receipt)`` of public receipts in ``(after, upto]`` for a server, oldest change first.

    They are those of ``of_server``'s users, in the rooms that the server is in now.
    """
    rows = await r.fetch(
        """SELECT o.room_id, t.user_id, t.type, t.thread_id, t.event_id, t.event_pos, t.ts, t.pos
           FROM room_servers s
           JOIN receipts t ON t.room_nid = s.room_nid AND t.pos > $2 AND t.pos <= $3
           JOIN rooms o ON o.room_nid = s.room_nid
           WHERE s.server_name = $1 AND t.type = 'm.read' AND t.user_id LIKE $4
           ORDER BY t.pos LIMIT $5""",
        server_name,
        after,
        upto,
        f"@%:{of_server}",
        limit,
    )
    return [(row[0], Receipt(*row[1:])) for row in rows]


async def of_user(r: Reader, room_nid: int, user_id: str) -> list[Receipt]:
    """Every receipt of one user in a room."""
    rows = await r.fetch(f"{_RECEIPT} WHERE room_nid = $1 AND user_id = $2", room_nid, user_id)
    return [Receipt(*row) for row in rows]


async def newest_changed(r: Reader, room_nid: int, after: int, upto: int, limit: int) -> list[Receipt]:
    """Those of a room's receipts that changed last in ``(after, upto]``, the newest change first."""
    rows = await r.fetch(
        f"{_RECEIPT} WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos DESC LIMIT $4",
        room_nid,
        after,
        upto,
        limit,
    )
    return [Receipt(*row) for row in rows]


async def of_user_in(
    r: Reader, user_id: str, room_nids: Sequence[int], upto: int
) -> list[tuple[int, Receipt]]:
    """``(room_nid, receipt)`` of one user in some rooms, but for what changed after ``upto``."""
    rows = await r.fetch_in(
        f"{_IN_ROOM} WHERE room_nid IN $1 AND user_id = $2 AND pos <= $3", room_nids, user_id, upto
    )
    return [(row[0], Receipt(*row[1:])) for row in rows]


async def at_events_after(r: Reader, room_nid: int, start: int, upto: int, limit: int) -> list[Receipt]:
    """A room's receipts at events after ``start``, but for what changed after ``upto``.

    Of very many those that are furthest.
    """
    rows = await r.fetch(
        f"""{_RECEIPT} WHERE room_nid = $1 AND event_pos > $2 AND pos <= $3
            ORDER BY event_pos DESC LIMIT $4""",
        room_nid,
        start,
        upto,
        limit,
    )
    return [Receipt(*row) for row in rows]


async def newest(r: Reader, room_nids: Sequence[int]) -> dict[int, int]:
    """The position of each room's newest receipt; rooms without receipts are left out."""
    rows = await r.fetch_in(
        "SELECT room_nid, MAX(pos) FROM receipts WHERE room_nid IN $1 GROUP BY room_nid", room_nids
    )
    return {row[0]: row[1] for row in rows}
