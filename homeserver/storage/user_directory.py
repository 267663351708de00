"""The user directory: who can be found by which words, and who may find whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: Behind every character that a word may have.
_BEHIND_ALL = "\U0010ffff"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Somebody as the directory shows them."""

    user_id: str
    is_remote: bool
    display_name: str | None
    avatar_url: str | None
    #: Whether name and avatar come from where anybody may see them.
    is_public: bool


class Progress(msgspec.Struct, frozen=True, gc=False):
    """Up to which version of its state a room has been read, and whether all may find its members."""

    room_nid: int
    epoch: int
    state_ver: int
    is_public: bool


async def entries(r: Reader, user_ids: Collection[str]) -> dict[str, Entry]:
    """The entries of those of some users who have one."""
    rows = await r.fetch_in(
        """SELECT user_id, is_remote, display_name, avatar_url, is_public FROM directory_users
           WHERE user_id IN $1""",
        list(user_ids),
    )
    return {row[0]: Entry(row[0], bool(row[1]), row[2], row[3], bool(row[4])) for row in rows}


async def put(tx: Transaction, found_by: Mapping[Entry, Sequence[str]]) -> None:
    """Store entries, each with the words it is found by from now on."""
    await tx.execute_many(
        """INSERT INTO directory_users (user_id, is_remote, display_name, avatar_url, is_public)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (user_id) DO UPDATE SET display_name = excluded.display_name,
               avatar_url = excluded.avatar_url, is_public = excluded.is_public""",
        [
            (each.user_id, int(each.is_remote), each.display_name, each.avatar_url, int(each.is_public))
            for each in found_by
        ],
    )
    await _remove_words(tx, [each.user_id for each in found_by])
    await tx.execute_many(
        "INSERT INTO directory_words (is_remote, word, user_id) VALUES ($1, $2, $3)",
        [(int(each.is_remote), word, each.user_id) for each, words in found_by.items() for word in words],
    )


async def remove(tx: Transaction, user_ids: Collection[str]) -> None:
    """Take users out of the directory."""
    await _remove_words(tx, user_ids)
    await tx.execute_many(
        "DELETE FROM directory_users WHERE user_id = $1", [(user_id,) for user_id in user_ids]
    )


async def _remove_words(tx: Transaction, user_ids: Collection[str]) -> None:
    await tx.execute_many(
        "DELETE FROM directory_words WHERE user_id = $1", [(user_id,) for user_id in user_ids]
    )


async def beginning_with(
    r: Reader, is_remote: bool, beginning: str, after: tuple[str, str], limit: int
) -> list[tuple[str, str]]:
    """``(word, user_id)`` behind ``after`` of users found by a word with a beginning, in order."""
    rows = await r.fetch(
        """SELECT word, user_id FROM directory_words
           WHERE is_remote = $1 AND word >= $2 AND word < $3 AND (word, user_id) > ($4, $5)
           ORDER BY word, user_id LIMIT $6""",
        int(is_remote),
        beginning,
        beginning + _BEHIND_ALL,
        *after,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def visible_to(r: Reader, user_ids: Collection[str], local_user: str) -> set[str]:
    """Those of the users who are joined to a public room, or to one that a local user is joined to."""
    rows = await r.fetch_in(
        """SELECT k.state_key FROM state_keys k
           WHERE k.state_key IN $1 AND k.type = 'm.room.member' AND EXISTS (
               SELECT 1 FROM current_state c
               WHERE c.key_nid = k.key_nid AND c.membership = 1 AND (
                   EXISTS (SELECT 1 FROM directory_rooms d WHERE d.room_nid = c.room_nid AND d.is_public = 1)
                   OR EXISTS (SELECT 1 FROM local_memberships l WHERE l.user_id = $2
                              AND l.room_nid = c.room_nid AND l.membership = 1)))""",
        list(user_ids),
        local_user,
    )
    return {row[0] for row in rows}


async def progress(r: Reader, room_nid: int) -> Progress | None:
    """How far a room has been read."""
    row = await r.fetch_row(
        "SELECT room_nid, epoch, state_ver, is_public FROM directory_rooms WHERE room_nid = $1", room_nid
    )
    return Progress(row[0], row[1], row[2], bool(row[3])) if row else None


async def set_progress(tx: Transaction, reached: Iterable[Progress]) -> None:
    """Note how far rooms have been read."""
    await tx.execute_many(
        """INSERT INTO directory_rooms (room_nid, epoch, state_ver, is_public) VALUES ($1, $2, $3, $4)
           ON CONFLICT (room_nid) DO UPDATE SET epoch = excluded.epoch, state_ver = excluded.state_ver,
               is_public = excluded.is_public""",
        [(each.room_nid, each.epoch, each.state_ver, int(each.is_public)) for each in reached],
    )


async def own_rooms(r: Reader, room_nids: Sequence[int], server_name: str) -> dict[int, tuple[int, int]]:
    """``(epoch, state_ver)`` of those of the rooms in which no other server has members.

    Left out are those that have been read in another epoch.
    """
    rows = await r.fetch_in(
        """SELECT r.room_nid, r.epoch, r.state_ver
           FROM rooms r LEFT JOIN directory_rooms d ON d.room_nid = r.room_nid
           WHERE r.room_nid IN $1 AND (d.room_nid IS NULL OR d.epoch = r.epoch) AND NOT EXISTS (
               SELECT 1 FROM room_servers s WHERE s.room_nid = r.room_nid AND s.server_name <> $2)""",
        room_nids,
        server_name,
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def members_changed_in(r: Reader, room_nids: Sequence[int]) -> list[tuple[int, str]]:
    """``(room_nid, user_id)`` of the memberships that changed since each of some rooms was read."""
    rows = await r.fetch_in(
        """SELECT DISTINCT s.room_nid, k.state_key
           FROM directory_rooms d
           JOIN state_log s ON s.room_nid = d.room_nid AND s.epoch = d.epoch AND s.ver > d.state_ver
           JOIN state_keys k ON k.key_nid = s.key_nid
           WHERE d.room_nid IN $1 AND k.type = 'm.room.member'""",
        room_nids,
    )
    return [(row[0], row[1]) for row in rows]


async def rooms_behind(r: Reader, after: int, limit: int) -> list[int]:
    """Rooms with a higher number than ``after`` whose state has changed since they were read."""
    rows = await r.fetch(
        """SELECT r.room_nid FROM rooms r LEFT JOIN directory_rooms d ON d.room_nid = r.room_nid
           WHERE r.room_nid > $1 AND r.last_pos > 0
               AND (d.room_nid IS NULL OR d.epoch <> r.epoch OR d.state_ver < r.state_ver)
           ORDER BY r.room_nid LIMIT $2""",
        after,
        limit,
    )
    return [row[0] for row in rows]


async def members_changed(r: Reader, reached: Progress, after: int, limit: int) -> list[str]:
    """Users whose membership changed behind version ``after`` of a room's state, up to the one reached."""
    rows = await r.fetch(
        """SELECT DISTINCT k.state_key FROM state_log s JOIN state_keys k ON k.key_nid = s.key_nid
           WHERE s.room_nid = $1 AND s.epoch = $2 AND s.ver > $3 AND s.ver <= $4
               AND k.type = 'm.room.member' LIMIT $5""",
        reached.room_nid,
        reached.epoch,
        after,
        reached.state_ver,
        limit,
    )
    return [row[0] for row in rows]


async def joined(r: Reader, room_nid: int, after: int, limit: int) -> list[tuple[int, str]]:
    """``(key_nid, user_id)`` of the members joined to a room, by rising ``key_nid``."""
    rows = await r.fetch(
        """SELECT c.key_nid, k.state_key FROM current_state c JOIN state_keys k ON k.key_nid = c.key_nid
           WHERE c.room_nid = $1 AND c.key_nid > $2 AND c.membership = 1 ORDER BY c.key_nid LIMIT $3""",
        room_nid,
        after,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def joins_of(r: Reader, room_nid: int, user_ids: Collection[str]) -> dict[str, int]:
    """The ``event_nid`` of the membership of those of some users who are joined to a room."""
    rows = await r.fetch_in(
        """SELECT k.state_key, c.event_nid FROM state_keys k JOIN current_state c ON c.key_nid = k.key_nid
           WHERE k.state_key IN $1 AND k.type = 'm.room.member' AND c.room_nid = $2 AND c.membership = 1""",
        list(user_ids),
        room_nid,
    )
    return {row[0]: row[1] for row in rows}


async def local_users(r: Reader, after: str, limit: int) -> list[str]:
    """Accounts behind ``after``, deactivated ones too, by their ids."""
    rows = await r.fetch(
        "SELECT user_id FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2", after, limit
    )
    return [row[0] for row in rows]
