"""Rooms and who is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeserver.storage import stays
from homeserver.storage.database import Reader, Transaction
from homeserver.storage.numbers import pack, unpack
from homeserver.storage.rows import Rows

#: How memberships are stored.
MEMBERSHIPS: dict[str, int] = {"join": 1, "invite": 2, "knock": 3, "leave": 4, "ban": 5}
MEMBERSHIP_NAMES: dict[int, str] = {number: name for name, number in MEMBERSHIPS.items()}


class StaleRoomError(Exception):
    """The room's row has moved on since it was read: what was decided from it does not hold."""


class RoomRow(msgspec.Struct, frozen=True, gc=False):
    """A room's row; ``last_pos`` 0 for a room this server is not in (yet)."""

    nid: int
    room_id: str
    version: str
    epoch: int
    state_ver: int
    last_pos: int
    depth: int
    tips: tuple[int, ...]
    joined_members: int
    invited_members: int
    checkpoint_ver: int = 0
    published: bool = False
    #: Where the state of a room that was joined with a part of it was complete; 0 for all others.
    full_since: int = 0


class LocalMembership(msgspec.Struct, frozen=True, gc=False):
    """What a local user sees of a room; ``membership`` is the spec's word."""

    user_id: str
    room_nid: int
    membership: str
    event_nid: int
    sender: str
    pos: int
    forgotten: bool = False
    #: ``invite_room_state`` or ``knock_room_state`` as JSON, for rooms this server is not in.
    stripped_state: bytes | None = None


_ROOM = """
    SELECT room_nid, room_id, version, epoch, state_ver, last_pos, depth, tips, joined_members,
           invited_members, checkpoint_ver, published, full_since
    FROM rooms
"""


_INSERT_ROOM = """
    INSERT INTO rooms (room_nid, room_id, version, epoch, state_ver, last_pos, depth, tips,
                       joined_members, invited_members)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""


def _room(row: Sequence[object]) -> RoomRow:
    values = list(row)
    values[7] = unpack(values[7])  # type: ignore[arg-type]
    values[11] = bool(values[11])
    return RoomRow(*values)  # type: ignore[arg-type]


async def by_id(r: Reader, room_id: str) -> RoomRow | None:
    """A room by its id."""
    row = await r.fetch_row(f"{_ROOM} WHERE room_id = $1", room_id)
    return _room(row) if row else None


async def by_nid(r: Reader, nid: int) -> RoomRow | None:
    """A room by its number."""
    row = await r.fetch_row(f"{_ROOM} WHERE room_nid = $1", nid)
    return _room(row) if row else None


async def by_nids(r: Reader, nids: Sequence[int]) -> dict[int, RoomRow]:
    """Rooms by their numbers."""
    return {row[0]: _room(row) for row in await r.fetch_in(f"{_ROOM} WHERE room_nid IN $1", nids)}


async def last_positions(r: Reader, nids: Sequence[int]) -> dict[int, int]:
    """The position of each room's newest event."""
    rows = await r.fetch_in("SELECT room_nid, last_pos FROM rooms WHERE room_nid IN $1", nids)
    return {row[0]: row[1] for row in rows}


async def set_version(tx: Transaction, nid: int, version: str) -> None:
    """Correct the version of a room that nothing but invitations is stored of."""
    await tx.execute("UPDATE rooms SET version = $2 WHERE room_nid = $1 AND last_pos = 0", nid, version)


async def insert(tx: Transaction, room: RoomRow) -> None:
    """Store a room; ``StaleRoomError`` when somebody else did in the meantime."""
    added = await tx.execute(
        _INSERT_ROOM,
        *_values(room),
    )
    if not added:
        raise StaleRoomError(room.room_id)


def _values(room: RoomRow) -> tuple[object, ...]:
    return (
        room.nid,
        room.room_id,
        room.version,
        room.epoch,
        room.state_ver,
        room.last_pos,
        room.depth,
        pack(room.tips),
        room.joined_members,
        room.invited_members,
    )


_ADVANCE = """
    UPDATE rooms SET epoch = $2, state_ver = $3, last_pos = $4, depth = $5, tips = $6,
                     joined_members = $7, invited_members = $8
    WHERE room_nid = $1 AND last_pos = $9
"""


def _move(room: RoomRow, expected_last_pos: int) -> tuple[object, ...]:
    return (
        room.nid,
        room.epoch,
        room.state_ver,
        room.last_pos,
        room.depth,
        pack(room.tips),
        room.joined_members,
        room.invited_members,
        expected_last_pos,
    )


async def advance(tx: Transaction, room: RoomRow, expected_last_pos: int) -> None:
    """Move a room's row on.

    ``StaleRoomError`` when its newest event is not the expected one, which is how
    two writers that decided from the same row find each other out.
    """
    if not await tx.execute(_ADVANCE, *_move(room, expected_last_pos)):
        raise StaleRoomError(room.room_id)


def moves(steps: Iterable[tuple[RoomRow, int]]) -> Rows | None:
    """The same for many rooms, each moved on once whatever number of steps it takes.

    ``None`` where a room's step does not begin where its last one ended.
    """
    first: dict[int, int] = {}
    last: dict[int, RoomRow] = {}
    for room, expected_last_pos in steps:
        if room.nid not in last:
            first[room.nid] = expected_last_pos
        elif last[room.nid].last_pos != expected_last_pos:
            return None
        last[room.nid] = room
    return Rows(_ADVANCE, [_move(room, first[nid]) for nid, room in last.items()], each_changes=True)


async def set_published(tx: Transaction, nid: int, published: bool) -> None:
    """List a room in the public room directory, or take it out."""
    await tx.execute("UPDATE rooms SET published = $2 WHERE room_nid = $1", nid, int(published))


async def set_outside_membership(tx: Transaction, room: RoomRow, membership: LocalMembership) -> None:
    """Record a membership in a room this server is not in, and the room where it is new."""
    await tx.execute(_INSERT_ROOM, *_values(room))
    await set_local_memberships(tx, [membership])


_LOCAL = """
    SELECT user_id, room_nid, membership, event_nid, sender, pos, forgotten, stripped_state
    FROM local_memberships
"""


def _local(row: Sequence[object]) -> LocalMembership:
    values = list(row)
    values[2] = MEMBERSHIP_NAMES[values[2]]  # type: ignore[index]
    values[6] = bool(values[6])
    return LocalMembership(*values)  # type: ignore[arg-type]


async def set_local_memberships(tx: Transaction, memberships: Iterable[LocalMembership]) -> None:
    """Record what local users see of rooms; a forgotten one stays so for who does not come back."""
    await tx.execute_many(
        """INSERT INTO local_memberships (user_id, room_nid, membership, event_nid, sender, pos, forgotten,
                                          stripped_state)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
           ON CONFLICT (user_id, room_nid) DO UPDATE SET
               membership = excluded.membership, event_nid = excluded.event_nid, sender = excluded.sender,
               pos = excluded.pos,
               forgotten = CASE WHEN excluded.membership IN (4, 5) AND local_memberships.forgotten = 1
                   THEN 1 ELSE excluded.forgotten END,
               stripped_state = excluded.stripped_state""",
        [
            (
                m.user_id,
                m.room_nid,
                MEMBERSHIPS[m.membership],
                m.event_nid,
                m.sender,
                m.pos,
                int(m.forgotten),
                m.stripped_state,
            )
            for m in memberships
        ],
    )


async def local_memberships_of(r: Reader, user_id: str) -> list[LocalMembership]:
    """Every room a local user has to do with, forgotten ones included."""
    return [_local(row) for row in await r.fetch(f"{_LOCAL} WHERE user_id = $1", user_id)]


async def local_memberships_in_rooms(
    r: Reader, user_id: str, room_nids: Sequence[int]
) -> list[LocalMembership]:
    """What a local user has to do with some rooms."""
    rows = await r.fetch_in(f"{_LOCAL} WHERE room_nid IN $1 AND user_id = $2", room_nids, user_id)
    return [_local(row) for row in rows]


async def local_membership(r: Reader, user_id: str, room_nid: int) -> LocalMembership | None:
    """One user's view of one room."""
    row = await r.fetch_row(f"{_LOCAL} WHERE user_id = $1 AND room_nid = $2", user_id, room_nid)
    return _local(row) if row else None


async def before_being_sent_away(r: Reader, user_id: str) -> list[tuple[int, int]]:
    """``(room_nid, event_nid)`` for rooms somebody else made a user leave: what they were before.

    The number is that of the member event that was replaced, or ``NO_EVENT``.
    """
    rows = await r.fetch(
        """SELECT m.room_nid, l.prev_event_nid
           FROM local_memberships m
           JOIN rooms o ON o.room_nid = m.room_nid
           JOIN state_log l ON l.room_nid = m.room_nid AND l.epoch = o.epoch AND l.ver = m.pos
                           AND l.event_nid = m.event_nid
           WHERE m.user_id = $1 AND m.membership IN (4, 5) AND m.sender <> $1""",
        user_id,
    )
    return [(row[0], row[1]) for row in rows]


async def local_memberships_in(r: Reader, room_nid: int) -> dict[str, str]:
    """The memberships of every local user who has to do with a room, by user id."""
    rows = await r.fetch("SELECT user_id, membership FROM local_memberships WHERE room_nid = $1", room_nid)
    return {row[0]: MEMBERSHIP_NAMES[row[1]] for row in rows}


async def local_joined(r: Reader, room_nid: int) -> list[str]:
    """The local users that are joined to a room."""
    rows = await r.fetch(
        "SELECT user_id FROM local_memberships WHERE room_nid = $1 AND membership = $2",
        room_nid,
        MEMBERSHIPS["join"],
    )
    return [row[0] for row in rows]


async def forget(tx: Transaction, user_id: str, room_nid: int) -> None:
    """Mark a room as forgotten by a user."""
    await tx.execute(
        "UPDATE local_memberships SET forgotten = 1 WHERE user_id = $1 AND room_nid = $2", user_id, room_nid
    )


async def servers(r: Reader, room_nid: int) -> dict[str, int]:
    """How many members each server has joined to a room."""
    rows = await r.fetch("SELECT server_name, joined FROM room_servers WHERE room_nid = $1", room_nid)
    return {row[0]: row[1] for row in rows}


async def set_servers(tx: Transaction, room_nid: int, joined: Mapping[str, int], pos: int) -> None:
    """Set the number of joined members of some servers, as of a position."""
    present = [(room_nid, server, count) for server, count in joined.items() if count > 0]
    await tx.execute_many(
        """INSERT INTO room_servers (room_nid, server_name, joined) VALUES ($1, $2, $3)
           ON CONFLICT (room_nid, server_name) DO UPDATE SET joined = excluded.joined""",
        present,
    )
    await stays.begin(tx, room_nid, [server for _, server, _ in present], pos)
    gone = [(room_nid, server) for server, count in joined.items() if count <= 0]
    if gone:
        await tx.execute_many("DELETE FROM room_servers WHERE room_nid = $1 AND server_name = $2", gone)
        await stays.end(tx, room_nid, [server for _, server in gone], pos)


async def clear_servers(tx: Transaction, room_nid: int, pos: int) -> None:
    """Forget which servers are in a room, before its state is imported anew at a position."""
    await tx.execute("DELETE FROM room_servers WHERE room_nid = $1", room_nid)
    await stays.end_all(tx, room_nid, pos)


async def share_a_room(r: Reader, one: str, other: str) -> bool:
    """Whether two servers have joined members in the same room."""
    found = await r.fetch_value(
        """SELECT 1 FROM room_servers a JOIN room_servers b ON b.room_nid = a.room_nid
           WHERE a.server_name = $1 AND b.server_name = $2 LIMIT 1""",
        one,
        other,
    )
    return found is not None


async def members(r: Reader, room_nid: int, membership: str, limit: int) -> list[tuple[str, int]]:
    """``(user_id, event_nid)`` of members in a room's current state, in no order that means anything."""
    rows = await r.fetch(
        """SELECT k.state_key, c.event_nid FROM current_state c JOIN state_keys k ON k.key_nid = c.key_nid
           WHERE c.room_nid = $1 AND c.membership = $2 ORDER BY c.key_nid LIMIT $3""",
        room_nid,
        MEMBERSHIPS[membership],
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def alias(r: Reader, room_alias: str) -> tuple[str, str] | None:
    """``(room_id, creator)`` of a local alias."""
    row = await r.fetch_row("SELECT room_id, creator FROM room_aliases WHERE alias = $1", room_alias)
    return (row[0], row[1]) if row else None


async def add_alias(tx: Transaction, room_alias: str, room_id: str, creator: str) -> bool:
    """Add a local alias; false when it is taken."""
    return bool(
        await tx.execute(
            "INSERT INTO room_aliases (alias, room_id, creator) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            room_alias,
            room_id,
            creator,
        )
    )


async def remove_alias(tx: Transaction, room_alias: str) -> bool:
    """Remove a local alias; false when there was none."""
    return bool(await tx.execute("DELETE FROM room_aliases WHERE alias = $1", room_alias))


async def aliases_of(r: Reader, room_id: str) -> list[str]:
    """The local aliases of a room."""
    rows = await r.fetch("SELECT alias FROM room_aliases WHERE room_id = $1 ORDER BY alias", room_id)
    return [row[0] for row in rows]


async def move_aliases(tx: Transaction, old_room_id: str, new_room_id: str) -> None:
    """Let a room's local aliases lead to the room that replaces it."""
    await tx.execute("UPDATE room_aliases SET room_id = $2 WHERE room_id = $1", old_room_id, new_room_id)
