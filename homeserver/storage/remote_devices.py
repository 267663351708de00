"""The devices of other servers' users, as far as they are kept here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class RemoteList(msgspec.Struct, frozen=True, gc=False):
    """A list that is kept: known up to the change ``stream_id``, and whether changes are missing."""

    user_id: str
    stream_id: int
    stale: bool


class RemoteDevice(msgspec.Struct, frozen=True, gc=False):
    """A device; ``keys`` is JSON, ``None`` where it does not encrypt."""

    user_id: str
    device_id: str
    keys: str | None
    display_name: str | None


async def lists(r: Reader, user_ids: Sequence[str]) -> dict[str, RemoteList]:
    """Those of the users' lists that are kept."""
    rows = await r.fetch_in(
        "SELECT user_id, stream_id, stale FROM remote_device_lists WHERE user_id IN $1", list(user_ids)
    )
    return {row[0]: RemoteList(row[0], row[1], bool(row[2])) for row in rows}


async def kept_users(r: Reader, after: str, limit: int) -> list[str]:
    """Users whose lists are kept, by id, after one of them."""
    rows = await r.fetch(
        "SELECT user_id FROM remote_device_lists WHERE user_id > $1 ORDER BY user_id LIMIT $2", after, limit
    )
    return [row[0] for row in rows]


async def stale_users(r: Reader, limit: int) -> list[str]:
    """Users whose lists have to be fetched anew."""
    rows = await r.fetch("SELECT user_id FROM remote_device_lists WHERE stale = 1 LIMIT $1", limit)
    return [row[0] for row in rows]


async def devices(r: Reader, user_ids: Sequence[str]) -> dict[str, dict[str, RemoteDevice]]:
    """The devices of users, by user and device id."""
    rows = await r.fetch_in(
        "SELECT user_id, device_id, keys, display_name FROM remote_devices WHERE user_id IN $1",
        list(user_ids),
    )
    found: defaultdict[str, dict[str, RemoteDevice]] = defaultdict(dict)
    for row in rows:
        found[row[0]][row[1]] = RemoteDevice(*row)
    return found


async def put_list(tx: Transaction, kept: RemoteList) -> None:
    """Keep a list, or move it on."""
    await tx.execute(
        """INSERT INTO remote_device_lists (user_id, stream_id, stale) VALUES ($1, $2, $3)
           ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id, stale = excluded.stale""",
        kept.user_id,
        kept.stream_id,
        int(kept.stale),
    )


async def put_devices(tx: Transaction, devices: Iterable[RemoteDevice]) -> None:
    """Store or replace devices."""
    await tx.execute_many(
        """INSERT INTO remote_devices (user_id, device_id, keys, display_name) VALUES ($1, $2, $3, $4)
           ON CONFLICT (user_id, device_id)
           DO UPDATE SET keys = excluded.keys, display_name = excluded.display_name""",
        [(device.user_id, device.device_id, device.keys, device.display_name) for device in devices],
    )


async def remove_device(tx: Transaction, user_id: str, device_id: str) -> None:
    """Forget one device."""
    await tx.execute("DELETE FROM remote_devices WHERE user_id = $1 AND device_id = $2", user_id, device_id)


async def remove_devices(tx: Transaction, user_id: str) -> None:
    """Forget a user's devices, before they are stored anew."""
    await tx.execute("DELETE FROM remote_devices WHERE user_id = $1", user_id)


async def remove_lists(tx: Transaction, user_ids: Sequence[str]) -> None:
    """Forget all that is kept of users, their cross-signing keys included."""
    rows = [(user_id,) for user_id in user_ids]
    for table in ("remote_device_lists", "remote_devices", "cross_signing_keys"):
        await tx.execute_many(f"DELETE FROM {table} WHERE user_id = $1", rows)
