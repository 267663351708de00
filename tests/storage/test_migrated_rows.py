"""Migrations that move what a database holds, applied to one that holds something."""

from __future__ import annotations

import shutil
from pathlib import Path

from homeserver.storage import open_database, transaction_ids
from homeserver.storage.migrations import SCHEMA


def schema_before(number: int, folder: Path) -> Path:
    """The schema as it was before the migration of that number."""
    folder.mkdir()
    for file in SCHEMA.glob("*.sql"):
        if int(file.name[:4]) < number:
            shutil.copy(file, folder)
    return folder


async def test_0030_keeps_by_which_transaction_events_were_sent(
    empty_database_url: str, tmp_path: Path
) -> None:
    old = await open_database(empty_database_url, schema_before(30, tmp_path / "schema"))
    events = [(nid, f"$event{nid}", 65536 * nid, b"") for nid in (1, 2, 3)]
    sent = [("PHONE", "t1", "$event1"), ("TABLET", "t1", "$event3"), ("PHONE", "t2", "$gone")]
    await old.write(
        lambda tx: tx.execute_many(
            """INSERT INTO events
               (event_nid, event_id, room_nid, pos, depth, origin_server_ts, flags, auth_nids)
               VALUES ($1, $2, 1, $3, 1, 1, 4, $4)""",
            events,
        )
    )
    await old.write(
        lambda tx: tx.execute_many(
            "INSERT INTO transaction_ids (user_id, device_id, scope, txn_id, event_id, created_at)"
            " VALUES ('@alice:here.example', $1, 'send', $2, $3, 1)",
            sent,
        )
    )
    await old.close()

    new = await open_database(empty_database_url)

    assert await transaction_ids.of_events(new.read, "PHONE", [1, 2, 3]) == {1: "t1"}
    assert await transaction_ids.of_events(new.read, "TABLET", [1, 2, 3]) == {3: "t1"}
    await new.close()
