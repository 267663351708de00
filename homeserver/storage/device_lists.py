"""When the devices or cross-signing keys of users changed, and who of this server's is still to be told of.

A change of a local user gets the user's next ``stream_id`` and a row that stays until
every server it concerns has an EDU of it in the outbox.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: Stands for a user's cross-signing keys where a device is expected.
SIGNING_KEYS = ""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A change of a local user's device, or of ``SIGNING_KEYS``."""

    number: int
    user_id: str
    device_id: str
    stream_id: int


async def record(tx: Transaction, user_id: str, device_ids: Sequence[str]) -> None:
    """Note that devices of a local user changed, came or went."""
    if not device_ids:
        return
    newest: int = await tx.fetch_value(
        """INSERT INTO device_lists (user_id, stream_id, pos) VALUES ($1, $2, 0)
           ON CONFLICT (user_id) DO UPDATE SET stream_id = device_lists.stream_id + $2
           RETURNING stream_id""",
        user_id,
        len(device_ids),
    )
    first = newest - len(device_ids) + 1
    await _add_changes(
        tx, [(user_id, device_id, first + index) for index, device_id in enumerate(device_ids)]
    )


async def record_signing_keys(tx: Transaction, user_id: str) -> None:
    """Note that the cross-signing keys of a local user changed."""
    await _add_changes(tx, [(user_id, SIGNING_KEYS, 0)])


async def _add_changes(tx: Transaction, rows: Sequence[tuple[str, str, int]]) -> None:
    await tx.execute_many(
        "INSERT INTO device_list_changes (user_id, device_id, stream_id) VALUES ($1, $2, $3)", rows
    )


async def untold(r: Reader, limit: int) -> list[Change]:
    """The oldest changes that other servers are still to be told of."""
    rows = await r.fetch(
        "SELECT number, user_id, device_id, stream_id FROM device_list_changes ORDER BY number LIMIT $1",
        limit,
    )
    return [Change(*row) for row in rows]


async def users_with_untold(r: Reader) -> list[str]:
    """Whose changes are still to be told."""
    return [row[0] for row in await r.fetch("SELECT DISTINCT user_id FROM device_list_changes")]


async def told(tx: Transaction, numbers: Sequence[int]) -> None:
    """These changes have been told."""
    await tx.execute_many(
        "DELETE FROM device_list_changes WHERE number = $1", [(number,) for number in numbers]
    )


async def stream_id(r: Reader, user_id: str) -> int:
    """The number of a local user's newest change; 0 before the first."""
    found: int | None = await r.fetch_value("SELECT stream_id FROM device_lists WHERE user_id = $1", user_id)
    return found or 0


async def set_position(tx: Transaction, user_ids: Sequence[str], pos: int) -> None:
    """Let people who share rooms with these users see, from a position on, that something changed."""
    await tx.execute_many(
        """INSERT INTO device_lists (user_id, stream_id, pos) VALUES ($1, 0, $2)
           ON CONFLICT (user_id) DO UPDATE SET pos = excluded.pos""",
        [(user_id, pos) for user_id in user_ids],
    )


async def changed_for(r: Reader, local_user: str, after: int) -> list[str]:
    """Who changed after a position, of those a local user shares a room with, and the user."""
    rows = await r.fetch(
        """SELECT d.user_id FROM device_lists d WHERE d.pos > $2 AND (d.user_id = $1 OR EXISTS (
               SELECT 1 FROM state_keys k
               JOIN current_state c ON c.key_nid = k.key_nid AND c.membership = 1
               JOIN local_memberships l
                   ON l.user_id = $1 AND l.room_nid = c.room_nid AND l.membership = 1
               WHERE k.type = 'm.room.member' AND k.state_key = d.user_id))""",
        local_user,
        after,
    )
    return [row[0] for row in rows]
