"""Dehydrated devices: which device of a user nobody uses, and what it takes to use it."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction


async def device(r: Reader, user_id: str) -> tuple[str, str] | None:
    """A user's dehydrated device: its id and ``device_data`` (JSON)."""
    row = await r.fetch_row(
        "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = $1", user_id
    )
    return (row[0], row[1]) if row else None


async def set_device(tx: Transaction, user_id: str, device_id: str, device_data: str) -> None:
    """From now on this is the dehydrated device; the caller removed the one before."""
    await tx.execute(
        "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES ($1, $2, $3)",
        user_id,
        device_id,
        device_data,
    )
