"""Profile fields of local users, each value as JSON text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.storage.database import Reader, Transaction


async def fields(r: Reader, user_id: str) -> dict[str, str]:
    """All fields of a user's profile: name to JSON."""
    rows = await r.fetch("SELECT field, value FROM profiles WHERE user_id = $1 ORDER BY field", user_id)
    return {row[0]: row[1] for row in rows}


async def field(r: Reader, user_id: str, name: str) -> str | None:
    """One field's JSON."""
    value: str | None = await r.fetch_value(
        "SELECT value FROM profiles WHERE user_id = $1 AND field = $2", user_id, name
    )
    return value


async def names_and_avatars(r: Reader, user_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``displayname`` and ``avatar_url`` of some users, decoded, as far as they are set."""
    rows = await r.fetch_in(
        """SELECT user_id, field, value FROM profiles
           WHERE user_id IN $1 AND field IN ('displayname', 'avatar_url')""",
        list(user_ids),
    )
    named: dict[str, dict[str, Any]] = {}
    for user_id, name, value in rows:
        named.setdefault(user_id, {})[name] = msgspec.json.decode(value)
    return named


async def set_field(tx: Transaction, user_id: str, name: str, value: str) -> None:
    """Set one field to a JSON text."""
    await tx.execute(
        """
        INSERT INTO profiles (user_id, field, value) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value
        """,
        user_id,
        name,
        value,
    )


async def remove_field(tx: Transaction, user_id: str, name: str) -> bool:
    """Remove one field; whether it was there."""
    return await tx.execute("DELETE FROM profiles WHERE user_id = $1 AND field = $2", user_id, name) == 1


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Remove the whole profile."""
    await tx.execute("DELETE FROM profiles WHERE user_id = $1", user_id)
