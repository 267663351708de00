"""Reports on both engines."""

from __future__ import annotations

from functools import partial

from homeserver.storage import reports
from homeserver.storage.database import Database
from homeserver.storage.reports import Report


async def test_reports_are_kept_once_for_each_thing_and_listed_newest_first(database: Database) -> None:
    for report in (
        Report("@a:x", "!r:x", "", "", "first", 1),
        Report("@a:x", "!r:x", "$e", "@b:x", "event", 2),
        Report("@b:x", "!r:x", "", "", "", 3),
        Report("@a:x", "!r:x", "", "", "second thoughts", 4),
    ):
        await database.write(partial(reports.put, report=report))

    found = await reports.newest(database.scan, 10)
    assert [(one.reporter, one.event_id, one.reason, one.received_at) for one in found] == [
        ("@b:x", "", "", 3),
        ("@a:x", "$e", "event", 2),
        ("@a:x", "", "second thoughts", 4),
    ]
    assert await reports.newest(database.scan, 1, before=found[0].report_id) == [found[1]]
    assert await reports.by_id(database.scan, found[1].report_id) == found[1]
    assert await reports.by_id(database.scan, 99) is None
