"""Filters that clients stored, numbered from 0 for each user."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction


async def definition(r: Reader, user_id: str, filter_id: int) -> str | None:
    """A filter's JSON as the client gave it."""
    text: str | None = await r.fetch_value(
        "SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2", user_id, filter_id
    )
    return text


async def add(tx: Transaction, user_id: str, definition_json: str) -> int:
    """Store a filter; the id of an equal one if the user has it already."""
    known: int | None = await tx.fetch_value(
        "SELECT filter_id FROM filters WHERE user_id = $1 AND definition = $2", user_id, definition_json
    )
    if known is not None:
        return known
    filter_id: int = await tx.fetch_value(
        """
        INSERT INTO filters (user_id, filter_id, definition)
        SELECT $1, COALESCE(MAX(filter_id) + 1, 0), $2 FROM filters WHERE user_id = $1
        RETURNING filter_id
        """,
        user_id,
        definition_json,
    )
    return filter_id


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget a user's filters."""
    await tx.execute("DELETE FROM filters WHERE user_id = $1", user_id)
