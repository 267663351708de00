"""The last known presence of users, and who shares a room with whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class StoredPresence(msgspec.Struct, frozen=True, gc=False):
    """A user's presence as it was last set; ``last_active_at`` in milliseconds since the epoch."""

    user_id: str
    presence: str
    status_msg: str | None
    last_active_at: int


async def of_user(r: Reader, user_id: str) -> StoredPresence | None:
    """The last known presence of a user."""
    row = await r.fetch_row(
        "SELECT user_id, presence, status_msg, last_active_at FROM presence WHERE user_id = $1", user_id
    )
    return StoredPresence(*row) if row else None


async def put_all(tx: Transaction, rows: Iterable[StoredPresence]) -> None:
    """Store the presence of several users."""
    await tx.execute_many(
        """INSERT INTO presence (user_id, presence, status_msg, last_active_at) VALUES ($1, $2, $3, $4)
           ON CONFLICT (user_id) DO UPDATE SET presence = excluded.presence,
               status_msg = excluded.status_msg, last_active_at = excluded.last_active_at""",
        [(row.user_id, row.presence, row.status_msg, row.last_active_at) for row in rows],
    )


async def joined_somewhere(r: Reader, user_ids: Sequence[str]) -> set[str]:
    """Those of the users, local or not, who are joined to any room."""
    rows = await r.fetch_in(
        """SELECT k.state_key FROM state_keys k
           WHERE k.state_key IN $1 AND k.type = 'm.room.member' AND EXISTS (
               SELECT 1 FROM current_state c WHERE c.key_nid = k.key_nid AND c.membership = 1)""",
        user_ids,
    )
    return {row[0] for row in rows}
