"""Tokens that let somebody register (client-server API, "Token-authenticated registration")."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction

_USABLE = "(uses_allowed IS NULL OR uses < uses_allowed) AND (expires_at IS NULL OR expires_at > $2)"


async def add(
    tx: Transaction, token: str, *, uses_allowed: int | None = None, expires_at: int | None = None
) -> bool:
    """Store a token; whether it is new."""
    added = await tx.execute(
        """
        INSERT INTO registration_tokens (token, uses_allowed, expires_at) VALUES ($1, $2, $3)
        ON CONFLICT (token) DO NOTHING
        """,
        token,
        uses_allowed,
        expires_at,
    )
    return added == 1


async def is_usable(r: Reader, token: str, now: int) -> bool:
    """Whether somebody could register with this token now."""
    found = await r.fetch_value(
        f"SELECT 1 FROM registration_tokens WHERE token = $1 AND {_USABLE}", token, now
    )
    return found is not None


async def use(tx: Transaction, token: str, now: int) -> bool:
    """Count one use; ``False`` when there is none left."""
    changed = await tx.execute(
        f"UPDATE registration_tokens SET uses = uses + 1 WHERE token = $1 AND {_USABLE}", token, now
    )
    return changed == 1


async def remove(tx: Transaction, token: str) -> bool:
    """Delete a token; whether there was one."""
    return await tx.execute("DELETE FROM registration_tokens WHERE token = $1", token) == 1
