"""When, and from where, devices were last in use."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class Use(msgspec.Struct, frozen=True, gc=False):
    """The last use of a device that is known; ``at`` in milliseconds since the epoch."""

    at: int
    ip: str | None
    user_agent: str | None


async def uses(r: Reader, user_id: str) -> dict[str, Use]:
    """Of all devices of a user, by device id."""
    rows = await r.fetch(
        "SELECT device_id, last_seen_at, last_seen_ip, user_agent FROM devices WHERE user_id = $1", user_id
    )
    return {row[0]: Use(row[1], row[2], row[3]) for row in rows}


async def store(tx: Transaction, seen: Iterable[tuple[str, str, Use]]) -> None:
    """Store the uses of devices (user id, device id, use); devices that are gone are passed over."""
    await tx.execute_many(
        """
        UPDATE devices SET last_seen_at = $3, last_seen_ip = $4, user_agent = $5
        WHERE user_id = $1 AND device_id = $2
        """,
        [(user_id, device_id, use.at, use.ip, use.user_agent) for user_id, device_id, use in seen],
    )
