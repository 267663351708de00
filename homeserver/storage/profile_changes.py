"""When each field of a local user's profile changed last, for those who follow profiles."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: Of one user, or who sets and removes fields of ever other names fills the disk.
_MAX_REMOVED = 100


class ProfileField(msgspec.Struct, frozen=True, gc=False):
    """A field of somebody's profile as it is now."""

    user_id: str
    field: str
    #: JSON; ``None``: the profile has no such field any more.
    value: str | None


async def note(tx: Transaction, user_id: str, field: str, pos: int) -> None:
    """Note that a field changed at a position of the stream."""
    await tx.execute(
        """INSERT INTO profile_changes (user_id, field, pos) VALUES ($1, $2, $3)
           ON CONFLICT (user_id, field) DO UPDATE SET pos = excluded.pos""",
        user_id,
        field,
        pos,
    )


async def note_removed(tx: Transaction, user_id: str, field: str, pos: int) -> None:
    """Note that a field was removed; of what a user removed only the newest is remembered."""
    await note(tx, user_id, field, pos)
    removed = """c.user_id = $1 AND NOT EXISTS (
        SELECT 1 FROM profiles p WHERE p.user_id = c.user_id AND p.field = c.field)"""
    oldest = await tx.fetch_value(
        f"SELECT c.pos FROM profile_changes c WHERE {removed} ORDER BY c.pos DESC LIMIT 1 OFFSET $2",
        user_id,
        _MAX_REMOVED,
    )
    if oldest is not None:
        await tx.execute(
            f"""DELETE FROM profile_changes WHERE user_id = $1 AND field IN (
                    SELECT c.field FROM profile_changes c WHERE {removed} AND c.pos <= $2)""",
            user_id,
            oldest,
        )


async def forget(tx: Transaction, user_id: str) -> None:
    """Forget when a user's profile changed."""
    await tx.execute("DELETE FROM profile_changes WHERE user_id = $1", user_id)


async def seen_by(r: Reader, local_user: str, since: int, upto: int, limit: int) -> list[ProfileField]:
    """Fields that changed in ``(since, upto]``, of a user and of those who share a room with them.

    The newest ``limit`` of them, newest first.
    """
    rows = await r.fetch(
        """SELECT c.user_id, c.field, p.value FROM profile_changes c
           LEFT JOIN profiles p ON p.user_id = c.user_id AND p.field = c.field
           WHERE c.pos > $1 AND c.pos <= $2 AND (c.user_id = $3 OR EXISTS (
               SELECT 1 FROM local_memberships theirs
               JOIN local_memberships mine ON mine.user_id = $3 AND mine.room_nid = theirs.room_nid
                   AND mine.membership = 1
               WHERE theirs.user_id = c.user_id AND theirs.membership = 1))
           ORDER BY c.pos DESC LIMIT $4""",
        since,
        upto,
        local_user,
        limit,
    )
    return [ProfileField(*row) for row in rows]


async def of_users(r: Reader, user_ids: Sequence[str]) -> list[ProfileField]:
    """All fields of the profiles of some local users."""
    rows = await r.fetch_in(
        "SELECT user_id, field, value FROM profiles WHERE user_id IN $1 ORDER BY user_id, field",
        list(user_ids),
    )
    return [ProfileField(*row) for row in rows]
