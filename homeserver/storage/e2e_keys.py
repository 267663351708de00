"""Keys of local devices: identity keys, one-time keys and fallback keys, each as JSON text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: How often a claim tries again when another process took the key it had its eyes on.
_CLAIM_ATTEMPTS = 5


class DeviceWithKeys(msgspec.Struct, frozen=True, gc=False):
    """A device that encrypts; ``keys`` is JSON."""

    user_id: str
    device_id: str
    keys: str
    display_name: str | None


class NewKey(msgspec.Struct, frozen=True, gc=False):
    """A one-time or fallback key; ``key`` is JSON."""

    algorithm: str
    key_id: str
    key: str


async def device_keys(r: Reader, user_id: str, device_id: str) -> str | None:
    """The identity keys of one device."""
    keys: str | None = await r.fetch_value(
        "SELECT keys FROM device_keys WHERE user_id = $1 AND device_id = $2", user_id, device_id
    )
    return keys


async def devices_with_keys(r: Reader, user_ids: Sequence[str]) -> dict[str, list[DeviceWithKeys]]:
    """The devices of some users that have keys, by user."""
    rows = await r.fetch_in(
        """SELECT k.user_id, k.device_id, k.keys, d.display_name
           FROM device_keys k JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
           WHERE k.user_id IN $1 ORDER BY k.user_id, k.device_id""",
        list(user_ids),
    )
    found: defaultdict[str, list[DeviceWithKeys]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(DeviceWithKeys(*row))
    return found


async def set_device_keys(tx: Transaction, user_id: str, device_id: str, keys: str) -> None:
    """Store or replace the identity keys of a device."""
    await tx.execute(
        """INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
           ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys""",
        user_id,
        device_id,
        keys,
    )


async def remove_devices(tx: Transaction, user_id: str, device_ids: Iterable[str]) -> None:
    """Forget every key of devices that are gone."""
    gone = [(user_id, device_id) for device_id in device_ids]
    for table in ("device_keys", "one_time_keys", "fallback_keys"):
        await tx.execute_many(f"DELETE FROM {table} WHERE user_id = $1 AND device_id = $2", gone)
    await tx.execute_many("DELETE FROM key_signatures WHERE target_user = $1 AND target_key = $2", gone)


async def one_time_keys(
    r: Reader, user_id: str, device_id: str, key_ids: Sequence[str]
) -> dict[tuple[str, str], str]:
    """Those of a device's keys that are known by such ids, given out ones included, by algorithm and id."""
    rows = await r.fetch_in(
        """SELECT algorithm, key_id, key FROM one_time_keys
           WHERE key_id IN $1 AND user_id = $2 AND device_id = $3""",
        list(key_ids),
        user_id,
        device_id,
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def add_one_time_keys(tx: Transaction, user_id: str, device_id: str, keys: Iterable[NewKey]) -> None:
    """Store keys, to be given out after all that are stored; the id of one given out is free again."""
    number: int = await tx.fetch_value(
        "SELECT COALESCE(MAX(number), 0) + 1 FROM one_time_keys WHERE user_id = $1 AND device_id = $2",
        user_id,
        device_id,
    )
    await tx.execute_many(
        """INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key, number)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (user_id, device_id, algorithm, key_id)
           DO UPDATE SET key = excluded.key, number = excluded.number, claimed_at = NULL""",
        [(user_id, device_id, key.algorithm, key.key_id, key.key, number) for key in keys],
    )


async def claimed_ids(
    r: Reader, user_id: str, device_id: str, key_ids: Sequence[str]
) -> set[tuple[str, str]]:
    """Algorithm and id of those of a device's keys that were given out."""
    rows = await r.fetch_in(
        """SELECT algorithm, key_id FROM one_time_keys
           WHERE key_id IN $1 AND user_id = $2 AND device_id = $3 AND claimed_at IS NOT NULL""",
        list(key_ids),
        user_id,
        device_id,
    )
    return {(row[0], row[1]) for row in rows}


async def counts(r: Reader, user_id: str, device_id: str) -> dict[str, int]:
    """How many keys of each algorithm a device has left."""
    rows = await r.fetch(
        """SELECT algorithm, COUNT(*) FROM one_time_keys
           WHERE user_id = $1 AND device_id = $2 AND claimed_at IS NULL GROUP BY algorithm""",
        user_id,
        device_id,
    )
    return {row[0]: row[1] for row in rows}


async def claim(
    tx: Transaction, user_id: str, device_id: str, algorithm: str, now_ms: int
) -> tuple[str, str] | None:
    """Give out the oldest key of an algorithm: its id and JSON.  Nobody else is ever given it."""
    for _ in range(_CLAIM_ATTEMPTS):
        row = await tx.fetch_row(
            """SELECT key_id, key FROM one_time_keys
               WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND claimed_at IS NULL
               ORDER BY number, key_id LIMIT 1""",
            user_id,
            device_id,
            algorithm,
        )
        if row is None:
            return None
        taken = await tx.execute(
            """UPDATE one_time_keys SET claimed_at = $5 WHERE user_id = $1 AND device_id = $2
                   AND algorithm = $3 AND key_id = $4 AND claimed_at IS NULL""",
            user_id,
            device_id,
            algorithm,
            row[0],
            now_ms,
        )
        if taken:
            return row[0], row[1]
    return None


async def forget_claimed(tx: Transaction, before_ms: int) -> int:
    """Forget keys that were given out before a time; how many."""
    return await tx.execute("DELETE FROM one_time_keys WHERE claimed_at < $1", before_ms)


async def fallback_keys(r: Reader, user_id: str, device_id: str) -> Mapping[str, tuple[NewKey, bool]]:
    """A device's fallback keys by algorithm, and whether each was given out."""
    rows = await r.fetch(
        "SELECT algorithm, key_id, key, used FROM fallback_keys WHERE user_id = $1 AND device_id = $2",
        user_id,
        device_id,
    )
    return {row[0]: (NewKey(row[0], row[1], row[2]), bool(row[3])) for row in rows}


async def set_fallback_keys(tx: Transaction, user_id: str, device_id: str, keys: Iterable[NewKey]) -> None:
    """Replace fallback keys by new ones that nobody has been given."""
    await tx.execute_many(
        """INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key, used)
           VALUES ($1, $2, $3, $4, $5, 0)
           ON CONFLICT (user_id, device_id, algorithm)
           DO UPDATE SET key_id = excluded.key_id, key = excluded.key, used = 0""",
        [(user_id, device_id, key.algorithm, key.key_id, key.key) for key in keys],
    )


async def use_fallback_key(
    tx: Transaction, user_id: str, device_id: str, algorithm: str
) -> tuple[str, str] | None:
    """Give out a fallback key: its id and JSON."""
    row = await tx.fetch_row(
        """UPDATE fallback_keys SET used = 1 WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
           RETURNING key_id, key""",
        user_id,
        device_id,
        algorithm,
    )
    return (row[0], row[1]) if row else None
