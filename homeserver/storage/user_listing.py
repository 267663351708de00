"""All local users at once, for who runs the server."""

from __future__ import annotations

from homeserver.storage.database import Reader
from homeserver.storage.users import User


async def every_user(r: Reader) -> list[User]:
    """Every local user, deactivated ones too, the oldest first.  Long: for ``db.scan``."""
    rows = await r.fetch(
        """
        SELECT user_id, password_hash, is_admin, deactivated, created_at FROM users
        ORDER BY created_at, user_id
        """
    )
    return [User(row[0], row[1], bool(row[2]), bool(row[3]), row[4]) for row in rows]


async def any_user(r: Reader) -> bool:
    """Whether there is a local user, deactivated or not."""
    return await r.fetch_value("SELECT 1 FROM users LIMIT 1") is not None
