"""Where devices were last used from: noted in memory, written now and then, on both engines."""

from __future__ import annotations

from homeserver.clock import FakeClock
from homeserver.storage import devices
from homeserver.storage.database import Database, Transaction
from homeserver.storage.last_seen import Use
from homeserver.users.last_seen import LastSeen
from homeserver.users.requester import Requester

ALICE = "@alice:a.org"
PHONE = Requester(ALICE, "PHONE")


async def with_devices(db: Database, *device_ids: str) -> None:
    async def add(tx: Transaction) -> None:
        for device_id in device_ids:
            await devices.add(tx, ALICE, device_id, display_name=None, now=1)

    await db.write(add)


async def test_a_use_is_known_at_once_and_after_it_was_written(database: Database) -> None:
    clock = FakeClock()
    seen = LastSeen(database, clock)
    await with_devices(database, "PHONE", "LAPTOP")
    seen.note(PHONE, "192.0.2.1", "Phone/1")
    expected = {"PHONE": Use(clock.now_ms(), "192.0.2.1", "Phone/1"), "LAPTOP": Use(1, None, None)}
    assert await seen.of(ALICE) == expected
    await seen.write()
    assert await LastSeen(database, clock).of(ALICE) == expected
    await seen.write()
    assert await seen.of(ALICE) == expected


async def test_what_heads_of_requests_hold_can_be_stored(database: Database) -> None:
    seen = LastSeen(database, FakeClock())
    await with_devices(database, "PHONE")
    seen.note(PHONE, "x" * 1000 + "\x00", "\udcff\x00agent" + "y" * 10_000)
    await seen.write()
    use = (await seen.of(ALICE))["PHONE"]
    assert use.ip is not None
    assert use.user_agent is not None
    assert (len(use.ip), len(use.user_agent), use.user_agent[:6]) == (64, 255, "?agent")


async def test_only_so_many_devices_are_remembered(sqlite_database: Database) -> None:
    seen = LastSeen(sqlite_database, FakeClock(), max_devices=2)
    await with_devices(sqlite_database, "A", "B", "C")
    for device_id in ("A", "B", "C"):
        seen.note(Requester(ALICE, device_id), "192.0.2.1", None)
    uses = await seen.of(ALICE)
    assert [device_id for device_id, use in uses.items() if use.ip] == ["B", "C"]


async def test_devices_that_are_gone_stay_gone(sqlite_database: Database) -> None:
    seen = LastSeen(sqlite_database, FakeClock())
    seen.note(PHONE, "192.0.2.1", None)
    seen.note(Requester(ALICE, None), "192.0.2.1", None)
    await seen.write()
    assert await seen.of(ALICE) == {}
