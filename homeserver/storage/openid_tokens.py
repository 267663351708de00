"""Tokens by which people prove to others who they are (client-server API, "OpenID")."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction


async def add(tx: Transaction, token_hash: bytes, user_id: str, expires_at: int) -> None:
    """Store a token, by its hash."""
    await tx.execute(
        "INSERT INTO openid_tokens (hash, user_id, expires_at) VALUES ($1, $2, $3)",
        token_hash,
        user_id,
        expires_at,
    )


async def user_of(r: Reader, token_hash: bytes, now: int) -> str | None:
    """Whose token it is; ``None`` for an unknown one, and for one that has expired."""
    user_id: str | None = await r.fetch_value(
        "SELECT user_id FROM openid_tokens WHERE hash = $1 AND expires_at > $2", token_hash, now
    )
    return user_id


async def remove_expired(tx: Transaction, now: int) -> None:
    """Delete what nobody can use any more."""
    await tx.execute("DELETE FROM openid_tokens WHERE expires_at <= $1", now)
