"""Backups of room keys: their versions, and the encrypted keys in each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Row, Transaction


class Backup(msgspec.Struct, frozen=True, gc=False):
    """One version of a user's backup; ``auth_data`` is JSON, ``etag`` how often its keys changed."""

    version: int
    algorithm: str
    auth_data: str
    etag: int
    count: int


class BackedUpKey(msgspec.Struct, frozen=True, gc=False):
    """A key of one Megolm session; ``session_data`` is JSON."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: str


async def create(tx: Transaction, user_id: str, algorithm: str, auth_data: str) -> int:
    """Begin a backup without keys; its version, above all there ever were."""
    version: int = await tx.fetch_value(
        """INSERT INTO key_backup_users (user_id, last_version) VALUES ($1, 1)
           ON CONFLICT (user_id) DO UPDATE SET last_version = key_backup_users.last_version + 1
           RETURNING last_version""",
        user_id,
    )
    await tx.execute(
        """INSERT INTO key_backups (user_id, version, algorithm, auth_data, etag, count)
           VALUES ($1, $2, $3, $4, 0, 0)""",
        user_id,
        version,
        algorithm,
        auth_data,
    )
    return version


async def number_of_backups(r: Reader, user_id: str) -> int:
    """How many versions are kept."""
    number: int = await r.fetch_value("SELECT COUNT(*) FROM key_backups WHERE user_id = $1", user_id)
    return number


async def last_version(r: Reader, user_id: str) -> int:
    """The newest version there ever was, deleted or not; 0 where there was none."""
    version: int | None = await r.fetch_value(
        "SELECT last_version FROM key_backup_users WHERE user_id = $1", user_id
    )
    return version or 0


async def current(r: Reader, user_id: str) -> Backup | None:
    """The newest version that is kept."""
    row = await r.fetch_row(
        """SELECT version, algorithm, auth_data, etag, count FROM key_backups
           WHERE user_id = $1 ORDER BY version DESC LIMIT 1""",
        user_id,
    )
    return Backup(*row) if row else None


async def backup(r: Reader, user_id: str, version: int) -> Backup | None:
    """One version."""
    row = await r.fetch_row(
        """SELECT version, algorithm, auth_data, etag, count FROM key_backups
           WHERE user_id = $1 AND version = $2""",
        user_id,
        version,
    )
    return Backup(*row) if row else None


async def set_auth_data(tx: Transaction, user_id: str, version: int, auth_data: str) -> None:
    """Replace what a backup is encrypted and signed with."""
    await tx.execute(
        "UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2",
        user_id,
        version,
        auth_data,
    )


async def remove(tx: Transaction, user_id: str, version: int) -> None:
    """Delete a version and every key in it."""
    for table in ("backed_up_keys", "key_backups"):
        await tx.execute(f"DELETE FROM {table} WHERE user_id = $1 AND version = $2", user_id, version)


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget everything a user backed up."""
    for table in ("backed_up_keys", "key_backups"):
        await tx.execute(f"DELETE FROM {table} WHERE user_id = $1", user_id)


async def keys_of_sessions(
    r: Reader, user_id: str, version: int, session_ids: Sequence[str]
) -> dict[tuple[str, str], BackedUpKey]:
    """The keys of some sessions by room and session, without their ``session_data``."""
    rows = await r.fetch_in(
        """SELECT room_id, session_id, first_message_index, forwarded_count, is_verified
           FROM backed_up_keys WHERE session_id IN $1 AND user_id = $2 AND version = $3""",
        list(session_ids),
        user_id,
        version,
    )
    return {(row[0], row[1]): BackedUpKey(row[0], row[1], row[2], row[3], bool(row[4]), "") for row in rows}


async def store_keys(tx: Transaction, user_id: str, version: int, keys: Iterable[BackedUpKey]) -> None:
    """Add keys, in the place of those of the same sessions."""
    await tx.execute_many(
        """INSERT INTO backed_up_keys (user_id, version, room_id, session_id,
               first_message_index, forwarded_count, is_verified, session_data)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
           ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET
               first_message_index = excluded.first_message_index,
               forwarded_count = excluded.forwarded_count,
               is_verified = excluded.is_verified,
               session_data = excluded.session_data""",
        [
            (
                *(user_id, version, key.room_id, key.session_id),
                *(key.first_message_index, key.forwarded_count, int(key.is_verified), key.session_data),
            )
            for key in keys
        ],
    )


async def remove_keys(
    tx: Transaction, user_id: str, version: int, room_id: str | None, session_id: str | None
) -> int:
    """Delete one key, those of a room, or all where neither is given; how many."""
    wanted = [text for text in (room_id, session_id) if text is not None]
    narrowed = "".join((" AND room_id = $3", " AND session_id = $4")[: len(wanted)])
    return await tx.execute(
        f"DELETE FROM backed_up_keys WHERE user_id = $1 AND version = $2{narrowed}",
        user_id,
        version,
        *wanted,
    )


async def keys_changed(tx: Transaction, user_id: str, version: int, more: int) -> None:
    """The keys are others than before, and ``more`` (or fewer, below 0)."""
    await tx.execute(
        "UPDATE key_backups SET etag = etag + 1, count = count + $3 WHERE user_id = $1 AND version = $2",
        user_id,
        version,
        more,
    )


async def key(r: Reader, user_id: str, version: int, room_id: str, session_id: str) -> BackedUpKey | None:
    """One key."""
    row = await r.fetch_row(
        """SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
           FROM backed_up_keys
           WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4""",
        user_id,
        version,
        room_id,
        session_id,
    )
    return _key(row) if row else None


async def keys_after(
    r: Reader, user_id: str, version: int, room_id: str, session_id: str, *, limit: int
) -> list[BackedUpKey]:
    """Keys by room and session, from behind a place on."""
    rows = await r.fetch(
        """SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
           FROM backed_up_keys
           WHERE user_id = $1 AND version = $2 AND (room_id, session_id) > ($3, $4)
           ORDER BY room_id, session_id LIMIT $5""",
        user_id,
        version,
        room_id,
        session_id,
        limit,
    )
    return [_key(row) for row in rows]


async def keys_of_room_after(
    r: Reader, user_id: str, version: int, room_id: str, session_id: str, *, limit: int
) -> list[BackedUpKey]:
    """Keys of one room by session, from behind one on."""
    rows = await r.fetch(
        """SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
           FROM backed_up_keys
           WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id > $4
           ORDER BY session_id LIMIT $5""",
        user_id,
        version,
        room_id,
        session_id,
        limit,
    )
    return [_key(row) for row in rows]


def _key(row: Row) -> BackedUpKey:
    return BackedUpKey(row[0], row[1], row[2], row[3], bool(row[4]), row[5])
