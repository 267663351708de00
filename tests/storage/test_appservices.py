"""What services are still to be sent, on both engines."""

from __future__ import annotations

from functools import partial

from homeserver.storage import appservices, summaries, to_device
from homeserver.storage.appservices import OnItsWay, Queued, Waiting
from homeserver.storage.database import Database
from homeserver.storage.summaries import Network


async def test_events_wait_until_they_are_put_into_a_transaction(database: Database) -> None:
    await database.write(lambda tx: appservices.keep_only(tx, ["one", "two"], 10))
    events = [Queued("one", 20, 7), Queued("one", 15, 0, b"{}"), Queued("two", 20, 7)]
    await database.write(partial(appservices.queue, events=events, pos=20))
    await database.write(partial(appservices.queue, events=events, pos=20))
    waiting = await appservices.queued(database.read, "one", 10)
    await database.write(lambda tx: to_device.add(tx, [("@a:b", "D", "{}")], 12))
    messages = await appservices.waiting(database.read, ["@a:b", "@c:d"], 12, 10)
    transaction = OnItsWay("one", 5, b"body")
    await database.write(
        partial(appservices.send, transaction=transaction, events=waiting, messages=messages, devices_pos=11)
    )

    assert waiting == [Queued("one", 15, 0, b"{}"), Queued("one", 20, 7)]
    assert messages == [Waiting("@a:b", "D", 12, "{}")]
    assert await appservices.queued(database.read, "one", 10) == []
    assert await appservices.queued(database.read, "two", 10) == [Queued("two", 20, 7)]
    assert await appservices.waiting_users(database.scan) == []
    assert await appservices.on_its_way(database.read, "one") == transaction
    row = (await appservices.everyone(database.read))["one"]
    assert (row.txn_id, row.pos, row.devices_pos) == (5, 20, 11)
    await database.write(partial(appservices.arrived, service_id="one", txn_id=5))
    assert await appservices.on_its_way(database.read, "one") is None


async def test_a_service_that_is_gone_is_forgotten_and_begins_anew(database: Database) -> None:
    await database.write(lambda tx: appservices.keep_only(tx, ["one", "two"], 10))
    await database.write(partial(appservices.queue, events=[Queued("one", 20, 7)], pos=20))
    await database.write(lambda tx: appservices.keep_only(tx, ["two"], 30))
    await database.write(lambda tx: appservices.keep_only(tx, ["one", "two"], 40))
    rows = await appservices.everyone(database.read)

    assert {name: row.pos for name, row in rows.items()} == {"one": 40, "two": 20}
    assert await appservices.queued(database.read, "one", 10) == []


async def test_nothing_is_listed_for_networks_without_rooms(database: Database) -> None:
    for listed in (None, "all", Network("one", "net")):
        assert await summaries.count_published(database.scan, listed) == 0  # type: ignore[arg-type]
        assert await summaries.published(database.scan, None, 10, backwards=False, listed=listed) == []  # type: ignore[arg-type]
    assert await appservices.newest_event_pos(database.scan) == 0
    assert await appservices.events_between(database.scan, 0, 2**40) == []
    assert await appservices.local_members(database.scan, 1) == []
    assert await appservices.device_list_changes(database.scan, 0, 9, 5) == []
