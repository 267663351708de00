"""What local users reported: rooms, events and users."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class Report(msgspec.Struct, frozen=True, gc=False):
    """One report; of ``room_id``, ``event_id`` and ``user_id`` those are empty that it is not about."""

    reporter: str
    room_id: str
    event_id: str
    user_id: str
    reason: str
    #: Milliseconds since the epoch.
    received_at: int
    #: 0 for one that is not stored yet.
    report_id: int = 0


_REPORT = "SELECT reporter, room_id, event_id, user_id, reason, received_at, report_id FROM reports"


async def put(tx: Transaction, report: Report) -> None:
    """Store a report; in place of what the same user said of the same thing before."""
    await tx.execute(
        """INSERT INTO reports (reporter, room_id, event_id, user_id, reason, received_at)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (reporter, room_id, event_id, user_id)
           DO UPDATE SET reason = excluded.reason, received_at = excluded.received_at""",
        report.reporter,
        report.room_id,
        report.event_id,
        report.user_id,
        report.reason,
        report.received_at,
    )


async def by_id(r: Reader, report_id: int) -> Report | None:
    """One report."""
    row = await r.fetch_row(f"{_REPORT} WHERE report_id = $1", report_id)
    return Report(*row) if row else None


async def newest(r: Reader, limit: int, *, before: int = 2**62) -> list[Report]:
    """The reports with the highest ids below ``before``, highest first."""
    rows = await r.fetch(f"{_REPORT} WHERE report_id < $1 ORDER BY report_id DESC LIMIT $2", before, limit)
    return [Report(*row) for row in rows]
