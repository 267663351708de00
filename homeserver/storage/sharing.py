"""Who shares a room with whom, for any users: what device lists are passed on by."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.storage.database import Reader

#: Rooms that a user, local or not, is joined to.
_JOINED = """state_keys k JOIN current_state c ON c.key_nid = k.key_nid AND c.membership = 1"""


async def with_user(r: Reader, user_ids: Sequence[str], local_user: str) -> set[str]:
    """Those of the users who are joined to a room that a local user is joined to."""
    rows = await r.fetch_in(
        f"""SELECT DISTINCT k.state_key FROM {_JOINED}
            JOIN local_memberships l ON l.user_id = $2 AND l.room_nid = c.room_nid AND l.membership = 1
            WHERE k.state_key IN $1 AND k.type = 'm.room.member'""",
        list(user_ids),
        local_user,
    )
    return {row[0] for row in rows}


async def with_server(r: Reader, user_ids: Sequence[str], server_name: str) -> set[str]:
    """Those of the users who are joined to a room that a server has joined members in."""
    rows = await r.fetch_in(
        f"""SELECT DISTINCT k.state_key FROM {_JOINED}
            JOIN room_servers s ON s.room_nid = c.room_nid AND s.server_name = $2
            WHERE k.state_key IN $1 AND k.type = 'm.room.member'""",
        list(user_ids),
        server_name,
    )
    return {row[0] for row in rows}


async def rooms_of(r: Reader, user_ids: Sequence[str]) -> list[int]:
    """The rooms that some users are joined to."""
    rows = await r.fetch_in(
        f"""SELECT DISTINCT c.room_nid FROM {_JOINED}
            WHERE k.state_key IN $1 AND k.type = 'm.room.member'""",
        list(user_ids),
    )
    return [row[0] for row in rows]


async def servers_of(r: Reader, local_user: str, *, but_room: int = 0) -> set[str]:
    """The servers that are in the rooms a local user is joined to, one room left out."""
    rows = await r.fetch(
        """SELECT DISTINCT s.server_name FROM local_memberships l
           JOIN room_servers s ON s.room_nid = l.room_nid
           WHERE l.user_id = $1 AND l.membership = 1 AND l.room_nid <> $2""",
        local_user,
        but_room,
    )
    return {row[0] for row in rows}


async def count_with_server(r: Reader, user_id: str, server_name: str) -> int:
    """How many of a user's rooms a server has joined members in."""
    count: int = await r.fetch_value(
        f"""SELECT COUNT(*) FROM {_JOINED}
            JOIN room_servers s ON s.room_nid = c.room_nid AND s.server_name = $2
            WHERE k.state_key = $1 AND k.type = 'm.room.member'""",
        user_id,
        server_name,
    )
    return count


async def joined_members(r: Reader, room_nid: int) -> list[str]:
    """Everybody who is joined to a room."""
    rows = await r.fetch(
        """SELECT k.state_key FROM current_state c JOIN state_keys k ON k.key_nid = c.key_nid
           WHERE c.room_nid = $1 AND c.membership = 1""",
        room_nid,
    )
    return [row[0] for row in rows]


async def mutual_rooms(r: Reader, local_user: str, other: str) -> dict[int, str]:
    """The rooms, number to id, that a local user and any other are both joined to."""
    rows = await r.fetch(
        f"""SELECT l.room_nid, r.room_id FROM {_JOINED}
            JOIN local_memberships l ON l.user_id = $1 AND l.room_nid = c.room_nid AND l.membership = 1
            JOIN rooms r ON r.room_nid = l.room_nid
            WHERE k.type = 'm.room.member' AND k.state_key = $2""",
        local_user,
        other,
    )
    return {row[0]: row[1] for row in rows}


async def sharing_with(r: Reader, user_ids: Sequence[str], local_user: str) -> set[str]:
    """Those of some users who share a room with a local user: stops at the first room of each."""
    rows = await r.fetch_in(
        """SELECT k.state_key FROM state_keys k
           WHERE k.state_key IN $1 AND k.type = 'm.room.member' AND EXISTS (
               SELECT 1 FROM current_state c
               JOIN local_memberships l ON l.user_id = $2 AND l.room_nid = c.room_nid AND l.membership = 1
               WHERE c.key_nid = k.key_nid AND c.membership = 1)""",
        list(user_ids),
        local_user,
    )
    return {row[0] for row in rows}


async def servers_of_each(r: Reader, local_users: Sequence[str]) -> dict[str, list[str]]:
    """The servers that are in the rooms each of some local users is joined to."""
    rows = await r.fetch_in(
        """SELECT DISTINCT l.user_id, s.server_name FROM local_memberships l
           JOIN room_servers s ON s.room_nid = l.room_nid
           WHERE l.user_id IN $1 AND l.membership = 1""",
        list(local_users),
    )
    servers: dict[str, list[str]] = {}
    for user_id, server_name in rows:
        servers.setdefault(user_id, []).append(server_name)
    return servers


async def local_members(r: Reader, room_nids: Sequence[int]) -> dict[int, list[str]]:
    """The local users that are joined to each of some rooms."""
    rows = await r.fetch_in(
        "SELECT room_nid, user_id FROM local_memberships WHERE room_nid IN $1 AND membership = 1",
        list(room_nids),
    )
    members: dict[int, list[str]] = {}
    for room_nid, user_id in rows:
        members.setdefault(room_nid, []).append(user_id)
    return members
