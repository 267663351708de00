"""Devices, and the access and refresh tokens bound to them.  Tokens come in as their SHA-256."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class Device(msgspec.Struct, frozen=True, gc=False):
    """A device; ``last_seen_at`` in milliseconds since the epoch, minutes late at times."""

    device_id: str
    display_name: str | None
    last_seen_at: int


class AccessToken(msgspec.Struct, frozen=True, gc=False):
    """A stored access token with what a request needs to know of its user and device."""

    token_id: int
    user_id: str
    device_id: str
    expires_at: int | None
    refresh_nid: int | None
    #: The refresh token that ends with the first use of this access token.
    replaces_nid: int | None
    is_admin: bool
    is_locked: bool
    is_suspended: bool
    is_guest: bool


class RefreshToken(msgspec.Struct, frozen=True, gc=False):
    """A stored refresh token; using it ends ``replaces_nid``."""

    refresh_nid: int
    user_id: str
    device_id: str
    replaces_nid: int | None


async def device(r: Reader, user_id: str, device_id: str) -> Device | None:
    """One device of a user."""
    row = await r.fetch_row(
        """
        SELECT device_id, display_name, last_seen_at
        FROM devices WHERE user_id = $1 AND device_id = $2
        """,
        user_id,
        device_id,
    )
    return Device(*row) if row else None


async def devices(r: Reader, user_id: str) -> list[Device]:
    """All devices of a user, by id."""
    rows = await r.fetch(
        """
        SELECT device_id, display_name, last_seen_at
        FROM devices WHERE user_id = $1 ORDER BY device_id
        """,
        user_id,
    )
    return [Device(*row) for row in rows]


async def device_ids(r: Reader, user_id: str) -> list[str]:
    """The ids of a user's devices."""
    rows = await r.fetch("SELECT device_id FROM devices WHERE user_id = $1 ORDER BY device_id", user_id)
    return [row[0] for row in rows]


async def device_ids_of(r: Reader, user_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the devices of some users, by user."""
    rows = await r.fetch_in(
        "SELECT user_id, device_id FROM devices WHERE user_id IN $1 ORDER BY user_id, device_id", user_ids
    )
    found: dict[str, list[str]] = {}
    for user_id, device_id in rows:
        found.setdefault(user_id, []).append(device_id)
    return found


async def add(tx: Transaction, user_id: str, device_id: str, *, display_name: str | None, now: int) -> bool:
    """Store a device; whether it is new.  A known one keeps its name."""
    added = await tx.execute(
        """
        INSERT INTO devices (user_id, device_id, display_name, created_at, last_seen_at)
        VALUES ($1, $2, $3, $4, $4) ON CONFLICT (user_id, device_id) DO NOTHING
        """,
        user_id,
        device_id,
        display_name,
        now,
    )
    return added == 1


async def rename(tx: Transaction, user_id: str, device_id: str, display_name: str) -> bool:
    """Give a device another name; whether there is such a device."""
    changed = await tx.execute(
        "UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2",
        user_id,
        device_id,
        display_name,
    )
    return changed == 1


async def remove(tx: Transaction, user_id: str, device_ids: Sequence[str]) -> list[str]:
    """Delete devices with their tokens, and what one left to be used again; the ids of those there were."""
    removed = []
    for device_id in device_ids:
        if await tx.execute("DELETE FROM devices WHERE user_id = $1 AND device_id = $2", user_id, device_id):
            removed.append(device_id)
            await tx.execute(
                "DELETE FROM dehydrated_devices WHERE user_id = $1 AND device_id = $2", user_id, device_id
            )
        await remove_tokens(tx, user_id, device_id)
    return removed


async def remove_tokens(tx: Transaction, user_id: str, device_id: str) -> None:
    """End every session of a device."""
    await tx.execute("DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2", user_id, device_id)
    await tx.execute("DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2", user_id, device_id)


async def access_token(r: Reader, token_hash: bytes) -> AccessToken | None:
    """A token of a user who is not deactivated, expired or not."""
    row = await r.fetch_row(
        """
        SELECT t.token_id, t.user_id, t.device_id, t.expires_at, t.refresh_nid, f.replaces_nid,
               u.is_admin, u.locked, u.suspended, u.is_guest
        FROM access_tokens t
        JOIN users u ON u.user_id = t.user_id
        JOIN devices d ON d.user_id = t.user_id AND d.device_id = t.device_id
        LEFT JOIN refresh_tokens f ON f.refresh_nid = t.refresh_nid
        WHERE t.hash = $1 AND u.deactivated = 0
        """,
        token_hash,
    )
    if row is None:
        return None
    return AccessToken(row[0], row[1], row[2], row[3], row[4], row[5], *(bool(flag) for flag in row[6:]))


async def add_access_token(
    tx: Transaction,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    *,
    expires_at: int | None = None,
    refresh_nid: int | None = None,
) -> int:
    """Store an access token; its row id."""
    token_id: int = await tx.fetch_value(
        """
        INSERT INTO access_tokens (hash, user_id, device_id, expires_at, refresh_nid)
        VALUES ($1, $2, $3, $4, $5) RETURNING token_id
        """,
        token_hash,
        user_id,
        device_id,
        expires_at,
        refresh_nid,
    )
    return token_id


async def refresh_token(r: Reader, token_hash: bytes) -> RefreshToken | None:
    """A refresh token of a user who is not deactivated."""
    row = await r.fetch_row(
        """
        SELECT f.refresh_nid, f.user_id, f.device_id, f.replaces_nid
        FROM refresh_tokens f JOIN users u ON u.user_id = f.user_id
        WHERE f.hash = $1 AND u.deactivated = 0
        """,
        token_hash,
    )
    return RefreshToken(*row) if row else None


async def add_refresh_token(
    tx: Transaction, token_hash: bytes, user_id: str, device_id: str, *, replaces_nid: int | None = None
) -> int:
    """Store a refresh token; its number."""
    refresh_nid: int = await tx.fetch_value(
        """
        INSERT INTO refresh_tokens (hash, user_id, device_id, replaces_nid)
        VALUES ($1, $2, $3, $4) RETURNING refresh_nid
        """,
        token_hash,
        user_id,
        device_id,
        replaces_nid,
    )
    return refresh_nid


async def end_replaced(tx: Transaction, refresh_nid: int, replaces_nid: int) -> None:
    """The new tokens are in use: end the refresh token they replace, and the access tokens it came with."""
    await _remove_refresh_tokens(tx, "refresh_nid = $1", replaces_nid)
    await tx.execute("UPDATE refresh_tokens SET replaces_nid = NULL WHERE refresh_nid = $1", refresh_nid)


async def remove_unused_successors(tx: Transaction, refresh_nid: int) -> None:
    """A refresh is repeated: whatever the first one gave out never reached the client."""
    await _remove_refresh_tokens(tx, "replaces_nid = $1", refresh_nid)


async def _remove_refresh_tokens(tx: Transaction, condition: str, nid: int) -> None:
    await tx.execute(
        "DELETE FROM access_tokens WHERE refresh_nid IN"
        f" (SELECT refresh_nid FROM refresh_tokens WHERE {condition})",
        nid,
    )
    await tx.execute(f"DELETE FROM refresh_tokens WHERE {condition}", nid)
