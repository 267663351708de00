"""Guests among the local users."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction
from homeserver.storage.rooms import MEMBERSHIPS

_CHUNK = 500


async def is_guest(r: Reader, user_id: str) -> bool:
    """Whether a user is a guest."""
    found = await r.fetch_value("SELECT 1 FROM users WHERE user_id = $1 AND is_guest = 1", user_id)
    return found is not None


async def add(tx: Transaction, user_id: str, created_at: int) -> bool:
    """Store a new guest; whether the id was free."""
    added = await tx.execute(
        """INSERT INTO users (user_id, password_hash, is_admin, created_at, is_guest)
           VALUES ($1, NULL, 0, $2, 1) ON CONFLICT (user_id) DO NOTHING""",
        user_id,
        created_at,
    )
    return added == 1


async def upgrade(tx: Transaction, user_id: str, password_hash: str) -> bool:
    """Make a guest a full user with a password; false for who is none (any more)."""
    changed = await tx.execute(
        """UPDATE users SET is_guest = 0, password_hash = $2
           WHERE user_id = $1 AND is_guest = 1 AND deactivated = 0""",
        user_id,
        password_hash,
    )
    return changed == 1


async def joined(r: Reader) -> list[tuple[str, int]]:
    """``(user_id, room_nid)`` of every stay of a guest."""
    found: list[tuple[str, int]] = []
    after = ""
    while rows := await r.fetch(
        "SELECT user_id FROM users WHERE is_guest = 1 AND user_id > $1 ORDER BY user_id LIMIT $2",
        after,
        _CHUNK,
    ):
        guests = [row[0] for row in rows]
        after = guests[-1]
        stays = await r.fetch_in(
            "SELECT user_id, room_nid FROM local_memberships WHERE user_id IN $1 AND membership = $2",
            guests,
            MEMBERSHIPS["join"],
        )
        found += [(row[0], row[1]) for row in stays]
    return found


async def joined_to(r: Reader, room_nid: int) -> list[tuple[str, int]]:
    """The same for one room."""
    rows = await r.fetch(
        """SELECT m.user_id, m.room_nid FROM local_memberships m JOIN users u ON u.user_id = m.user_id
           WHERE m.room_nid = $1 AND m.membership = $2 AND u.is_guest = 1""",
        room_nid,
        MEMBERSHIPS["join"],
    )
    return [(row[0], row[1]) for row in rows]
