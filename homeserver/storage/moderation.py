"""What administrators did to accounts: locks and suspensions, both of which can be undone."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How an account stands that is not deactivated."""

    is_admin: bool
    locked: bool
    suspended: bool


async def standing(r: Reader, user_id: str) -> Standing | None:
    """How a local user stands; ``None`` for one who does not exist or is deactivated."""
    row = await r.fetch_row(
        "SELECT is_admin, locked, suspended FROM users WHERE user_id = $1 AND deactivated = 0", user_id
    )
    return Standing(bool(row[0]), bool(row[1]), bool(row[2])) if row else None


async def set_locked(tx: Transaction, user_id: str, locked: bool) -> None:
    """Lock an account, or unlock it."""
    await tx.execute("UPDATE users SET locked = $2 WHERE user_id = $1", user_id, int(locked))


async def set_suspended(tx: Transaction, user_id: str, suspended: bool) -> None:
    """Suspend an account, or end that."""
    await tx.execute("UPDATE users SET suspended = $2 WHERE user_id = $1", user_id, int(suspended))
