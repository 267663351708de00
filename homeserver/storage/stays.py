"""When servers were in which rooms, and so which of the events sent here each of them is owed.

An event is for a server when it came after the server joined the room and not after it left;
the event by which it leaves is for it too.  Ended stays are kept until the server has been
sent everything up to their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

_CHUNK = 500


class RoomNews(msgspec.Struct, frozen=True, gc=False):
    """The newest of the events that a server is owed of one stay in a room."""

    pos: int
    event_nid: int
    room_nid: int
    #: The stay: events in ``(joined_pos, pos]`` are for the server.
    joined_pos: int


async def begin(tx: Transaction, room_nid: int, servers: Iterable[str], pos: int) -> None:
    """Servers have members in a room; nothing happens for those that had some before."""
    await tx.execute_many(
        """INSERT INTO room_stays (server_name, room_nid, joined_pos)
           SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS BIGINT)
           WHERE NOT EXISTS (SELECT 1 FROM room_stays
                             WHERE server_name = $1 AND room_nid = $2 AND left_pos IS NULL)
           ON CONFLICT (server_name, room_nid, joined_pos) DO UPDATE SET left_pos = NULL""",
        [(server, room_nid, pos) for server in servers],
    )


async def end(tx: Transaction, room_nid: int, servers: Iterable[str], pos: int) -> None:
    """Servers have no members in a room any more."""
    await tx.execute_many(
        """UPDATE room_stays SET left_pos = $3
           WHERE server_name = $1 AND room_nid = $2 AND left_pos IS NULL""",
        [(server, room_nid, pos) for server in servers],
    )


async def end_all(tx: Transaction, room_nid: int, pos: int) -> None:
    """Nobody is known to be in a room any more."""
    await tx.execute(
        "UPDATE room_stays SET left_pos = $2 WHERE room_nid = $1 AND left_pos IS NULL", room_nid, pos
    )


async def owe(tx: Transaction, server_name: str, room_nid: int, pos: int) -> None:
    """An event is for a server that is not in the room, unless a stay says so already."""
    await tx.execute(
        """INSERT INTO room_stays (server_name, room_nid, joined_pos, left_pos)
           SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS BIGINT) - 1, CAST($3 AS BIGINT)
           WHERE NOT EXISTS (SELECT 1 FROM room_stays WHERE server_name = $1 AND room_nid = $2
                             AND joined_pos < $3 AND (left_pos IS NULL OR left_pos >= $3))
           ON CONFLICT (server_name, room_nid, joined_pos) DO NOTHING""",
        server_name,
        room_nid,
        pos,
    )


async def forget_delivered(tx: Transaction) -> int:
    """Forget the ended stays whose server has been sent everything of them; how many."""
    return await tx.execute(
        """DELETE FROM room_stays WHERE left_pos IS NOT NULL AND EXISTS (
               SELECT 1 FROM destinations d
               WHERE d.server_name = room_stays.server_name AND d.sent_pos >= room_stays.left_pos)"""
    )


async def missed(r: Reader, server_name: str, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
    """``(pos, event_nid)`` of events sent here in ``(after, upto]`` that are for a server.

    Oldest first where there are fewer than ``limit``; else any so many of them.
    """
    rows = await r.fetch(
        """SELECT e.pos, e.event_nid FROM room_stays s JOIN events e ON e.room_nid = s.room_nid
           WHERE s.server_name = $1 AND (s.left_pos IS NULL OR s.left_pos > $2)
               AND e.flags IN (4, 12) AND e.pos > $2 AND e.pos <= $3
               AND e.pos > s.joined_pos AND (s.left_pos IS NULL OR e.pos <= s.left_pos)
           LIMIT $4""",
        server_name,
        after,
        upto,
        limit,
    )
    return sorted((row[0], row[1]) for row in rows)


async def newest_missed(r: Reader, server_name: str, after: int, upto: int, limit: int) -> list[RoomNews]:
    """For each stay the newest event sent here in ``(after, upto]`` that is for a server.

    Those of the longest quiet rooms first, at most ``limit``.
    """
    rows = await r.fetch(
        """SELECT e.pos, e.event_nid, e.room_nid, newest.joined_pos
           FROM (SELECT s.room_nid, s.joined_pos, (
                     SELECT e.pos FROM events e
                     WHERE e.room_nid = s.room_nid AND e.flags IN (4, 12) AND e.pos > $2 AND e.pos <= $3
                         AND e.pos > s.joined_pos AND (s.left_pos IS NULL OR e.pos <= s.left_pos)
                     ORDER BY e.pos DESC LIMIT 1
                 ) AS pos
                 FROM room_stays s
                 WHERE s.server_name = $1 AND (s.left_pos IS NULL OR s.left_pos > $2)) newest
           JOIN events e ON e.room_nid = newest.room_nid AND e.pos = newest.pos
           ORDER BY e.pos LIMIT $4""",
        server_name,
        after,
        upto,
        limit,
    )
    return [RoomNews(*row) for row in rows]


async def sent_before(r: Reader, room_nid: int, after: int, upto: int, limit: int) -> list[int]:
    """``event_nid`` of the newest events sent here to a room in ``(after, upto]``, newest first."""
    rows = await r.fetch(
        """SELECT event_nid FROM events
           WHERE room_nid = $1 AND flags IN (4, 12) AND pos > $2 AND pos <= $3 ORDER BY pos DESC LIMIT $4""",
        room_nid,
        after,
        upto,
        limit,
    )
    return [row[0] for row in rows]


async def current(r: Reader, rooms: Sequence[int]) -> list[tuple[str, int, int]]:
    """``(server_name, room_nid, joined_pos)`` of the servers that are in rooms now."""
    rows = await r.fetch_in(
        "SELECT server_name, room_nid, joined_pos FROM room_stays WHERE room_nid IN $1 AND left_pos IS NULL",
        rooms,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def servers_owed(r: Reader, after: int) -> set[str]:
    """The servers that events or receipts after a position may be for."""
    rows = await r.fetch(
        """SELECT r.room_nid FROM rooms r
           WHERE (r.last_pos > $1 AND EXISTS (
                      SELECT 1 FROM events e
                      WHERE e.room_nid = r.room_nid AND e.flags IN (4, 12) AND e.pos > $1))
               OR EXISTS (SELECT 1 FROM receipts t WHERE t.room_nid = r.room_nid AND t.pos > $1)""",
        after,
    )
    rooms = [row[0] for row in rows]
    ended = await r.fetch("SELECT server_name FROM room_stays WHERE left_pos > $1", after)
    servers = {row[0] for row in ended}
    for start in range(0, len(rooms), _CHUNK):
        chunk = rooms[start : start + _CHUNK]
        open_ = await r.fetch_in(
            "SELECT DISTINCT server_name FROM room_stays WHERE room_nid IN $1 AND left_pos IS NULL", chunk
        )
        servers.update(row[0] for row in open_)
    return servers
