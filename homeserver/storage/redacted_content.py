"""What redactions took away from events, kept for a time."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.storage.database import Reader, Transaction
from homeserver.storage.event_json import decode_event_json
from homeserver.storage.events import REDACTED


async def keep(tx: Transaction, event_nid: int, expires_ts: int) -> None:
    """Keep the JSON of an event that is about to be redacted, unless it is redacted already."""
    await tx.execute(
        f"""INSERT INTO redacted_content (event_nid, json, expires_ts)
            SELECT e.event_nid, j.json, CAST($2 AS BIGINT)
            FROM events e JOIN event_json j ON j.event_nid = e.event_nid
            WHERE e.event_nid = $1 AND e.flags & {REDACTED} = 0
            ON CONFLICT DO NOTHING""",
        event_nid,
        expires_ts,
    )


async def json_of(r: Reader, event_nid: int, now: int) -> bytes | None:
    """The JSON an event had, if it is kept and not over at ``now`` (milliseconds)."""
    json: bytes | None = await r.fetch_value(
        "SELECT json FROM redacted_content WHERE event_nid = $1 AND expires_ts > $2", event_nid, now
    )
    return None if json is None else decode_event_json(json)


async def forget(tx: Transaction, event_nids: Sequence[int]) -> None:
    """Forget what some events were."""
    await tx.execute_many("DELETE FROM redacted_content WHERE event_nid = $1", [(nid,) for nid in event_nids])


async def forget_expired(tx: Transaction, now: int, latest: int, limit: int) -> int:
    """Forget up to ``limit`` of those that are over, or kept beyond ``latest``; how many those were."""
    return await tx.execute(
        """DELETE FROM redacted_content WHERE event_nid IN (
               SELECT event_nid FROM redacted_content WHERE expires_ts <= $1 OR expires_ts > $2
               LIMIT $3)""",
        now,
        latest,
        limit,
    )
