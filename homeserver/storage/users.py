"""Local users."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class User(msgspec.Struct, frozen=True, gc=False):
    """A local account; a deactivated one keeps its row, so that nobody gets its id again."""

    user_id: str
    #: argon2id in its text form; ``None`` when nobody can log in with a password.
    password_hash: str | None
    is_admin: bool
    deactivated: bool
    #: Milliseconds since the epoch.
    created_at: int


_USER = "SELECT user_id, password_hash, is_admin, deactivated, created_at FROM users"


async def user(r: Reader, user_id: str) -> User | None:
    """A local user, deactivated or not."""
    row = await r.fetch_row(f"{_USER} WHERE user_id = $1", user_id)
    return User(row[0], row[1], bool(row[2]), bool(row[3]), row[4]) if row else None


async def exists(r: Reader, user_id: str) -> bool:
    """Whether the id is taken, if only by a deactivated account."""
    return await r.fetch_value("SELECT 1 FROM users WHERE user_id = $1", user_id) is not None


async def add(
    tx: Transaction, user_id: str, *, password_hash: str | None, is_admin: bool, created_at: int
) -> bool:
    """Store a new user; whether the id was free."""
    added = await tx.execute(
        """
        INSERT INTO users (user_id, password_hash, is_admin, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id) DO NOTHING
        """,
        user_id,
        password_hash,
        int(is_admin),
        created_at,
    )
    return added == 1


async def set_password_hash(tx: Transaction, user_id: str, password_hash: str) -> None:
    """Replace the password of a user who is not deactivated."""
    await tx.execute(
        "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND deactivated = 0", user_id, password_hash
    )


async def deactivate(tx: Transaction, user_id: str) -> None:
    """Mark a user as gone and forget the password."""
    await tx.execute(
        "UPDATE users SET deactivated = 1, password_hash = NULL, is_admin = 0 WHERE user_id = $1", user_id
    )


async def active_among(r: Reader, user_ids: Sequence[str]) -> set[str]:
    """Those of the ids that are users who are not deactivated."""
    rows = await r.fetch_in(
        "SELECT user_id FROM users WHERE user_id IN $1 AND deactivated = 0", list(user_ids)
    )
    return {row[0] for row in rows}
