"""Messages from device to device, kept until the receiving device has them."""

from __future__ import annotations

from collections.abc import Iterable

from homeserver.storage.database import Reader, Transaction


async def add(tx: Transaction, messages: Iterable[tuple[str, str, str]], pos: int) -> None:
    """Store ``(user_id, device_id, message JSON)`` at a position; at most one message a device."""
    await tx.execute_many(
        "INSERT INTO to_device (user_id, device_id, pos, message) VALUES ($1, $2, $3, $4)",
        [(user_id, device_id, pos, message) for user_id, device_id, message in messages],
    )


async def waiting(
    r: Reader, user_id: str, device_id: str, upto: int, limit: int, *, after: int = 0
) -> list[tuple[int, str]]:
    """``(pos, message JSON)`` of a device's messages after one position, up to another, oldest first."""
    rows = await r.fetch(
        """SELECT pos, message FROM to_device
           WHERE user_id = $1 AND device_id = $2 AND pos <= $3 AND pos > $5 ORDER BY pos LIMIT $4""",
        user_id,
        device_id,
        upto,
        limit,
        after,
    )
    return [(row[0], row[1]) for row in rows]


async def remove_upto(tx: Transaction, user_id: str, device_id: str, upto: int) -> None:
    """Delete what a device has received."""
    await tx.execute(
        "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos <= $3", user_id, device_id, upto
    )


async def remove_device(tx: Transaction, user_id: str, device_id: str) -> None:
    """Delete whatever waits for a device that is gone."""
    await tx.execute("DELETE FROM to_device WHERE user_id = $1 AND device_id = $2", user_id, device_id)


async def note_received(tx: Transaction, origin: str, message_id: str, now_ms: int) -> bool:
    """Remember another server's message; false when it came before."""
    return bool(
        await tx.execute(
            """INSERT INTO to_device_received (origin, message_id, received_at) VALUES ($1, $2, $3)
               ON CONFLICT (origin, message_id) DO NOTHING""",
            origin,
            message_id,
            now_ms,
        )
    )


async def forget_received(tx: Transaction, before_ms: int) -> int:
    """Forget messages of other servers from before a time; how many."""
    return await tx.execute("DELETE FROM to_device_received WHERE received_at < $1", before_ms)
