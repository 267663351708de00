"""What federation keeps, on both engines."""

from __future__ import annotations

from homeserver.storage import (
    destinations,
    inbound_pdus,
    outbox,
    receipts,
    received_transactions,
    remote_keys,
    rooms,
    stays,
)
from homeserver.storage.database import Database, Transaction
from homeserver.storage.destinations import Destination
from homeserver.storage.inbound_pdus import InboundPdu
from homeserver.storage.outbox import OutboxEdu
from homeserver.storage.receipts import Receipt
from homeserver.storage.remote_keys import PublishedKeys, RemoteKey
from homeserver.storage.rooms import RoomRow


async def test_what_is_new_about_a_key_is_kept_but_not_another_key_by_its_id(database: Database) -> None:
    first, second = (RemoteKey("a.example", f"ed25519:{number}", "key", 1) for number in (1, 2))
    elsewhere = RemoteKey("b.example", "ed25519:1", "key of b", 9)
    await database.write(lambda tx: remote_keys.put(tx, [first, second, elsewhere]))
    ended = RemoteKey("a.example", "ed25519:1", "key", 5, expired=True)
    await database.write(
        lambda tx: remote_keys.put(tx, [ended, RemoteKey("a.example", "ed25519:2", "hostile", 7)])
    )

    found = await remote_keys.of_servers(database.read, ["a.example", "c.example"])

    assert sorted(found, key=lambda key: key.key_id) == [ended, second]
    assert await remote_keys.of_servers(database.read, ["b.example"]) == [elsewhere]


async def test_the_newest_answer_with_a_key_is_kept(database: Database) -> None:
    def answer(key_id: str, fetched_at: int, server: str = "a.example") -> PublishedKeys:
        return PublishedKeys(server, key_id, fetched_at, b"%d" % fetched_at)

    for each in (
        answer("k1", 10),
        answer("k2", 20),
        answer("k1", 30),
        answer("k2", 5),
        answer("k1", 40, "b"),
    ):
        await database.write(lambda tx, each=each: remote_keys.put_published(tx, [each]))  # type: ignore[misc]

    found = await remote_keys.published_by(database.scan, ["a.example", "c.example"])
    assert found == [answer("k1", 30), answer("k2", 20)]

    assert await database.write(lambda tx: remote_keys.forget_published(tx, 2)) == 1
    assert await remote_keys.published_by(database.scan, ["a.example"]) == [answer("k1", 30)]
    assert await database.write(lambda tx: remote_keys.forget_published(tx, 2)) == 0


async def test_destinations_that_work_advance_together(database: Database) -> None:
    rows = [
        Destination("works.example", 5),
        Destination("fails.example", 5, 2, 99),
        Destination("ahead.example", 50),
    ]
    for row in rows:
        await database.write(lambda tx, row=row: destinations.put(tx, row))  # type: ignore[misc]
    await database.write(lambda tx: destinations.advance(tx, 10))

    found = {row.server_name: row for row in await destinations.everyone(database.scan)}

    assert found["works.example"].sent_pos == 10
    assert found["fails.example"] == rows[1]
    assert found["ahead.example"] == rows[2]
    assert await destinations.get(database.read, "unknown.example") is None


async def test_the_outbox_gives_the_oldest_first_and_can_be_cut(database: Database) -> None:
    edus = [OutboxEdu("a.example", number, b"%d" % number, number) for number in range(1, 6)]
    await database.write(lambda tx: outbox.add(tx, [*edus, OutboxEdu("b.example", 9, b"9", 0)]))

    assert await outbox.oldest(database.scan, "a.example", 2) == [(1, b"1"), (2, b"2")]
    await database.write(lambda tx: outbox.remove_upto(tx, "a.example", 2))
    assert await database.write(lambda tx: outbox.remove_oldest(tx, "a.example", 2)) == 1
    assert await outbox.oldest(database.scan, "a.example", 9) == [(4, b"4"), (5, b"5")]
    assert await outbox.destinations(database.scan) == ["a.example", "b.example"]
    assert await database.write(lambda tx: outbox.remove_older(tx, 5)) == 1
    assert await outbox.oldest(database.scan, "a.example", 9) == [(5, b"5")]
    assert await outbox.destinations(database.scan) == ["a.example", "b.example"], "of unknown age"


async def test_the_first_reply_to_a_transaction_counts_until_it_is_old(database: Database) -> None:
    await database.write(lambda tx: received_transactions.add(tx, "a.example", "t", b"first", 10))
    await database.write(lambda tx: received_transactions.add(tx, "a.example", "t", b"second", 20))

    assert await received_transactions.reply(database.read, "a.example", "t") == b"first"
    assert await received_transactions.reply(database.read, "b.example", "t") is None
    assert await database.write(lambda tx: received_transactions.remove_older(tx, 11)) == 1
    assert await received_transactions.reply(database.read, "a.example", "t") is None


async def test_pdus_that_wait_keep_their_order_until_they_are_removed(database: Database) -> None:
    pdus = [
        InboundPdu(number, "a.example", f"!room{number % 2}:a.example", b"{%d}" % number)
        for number in (3, 1, 2)
    ]
    await database.write(lambda tx: inbound_pdus.add(tx, pdus))
    await database.write(lambda tx: inbound_pdus.remove(tx, 2))
    await database.write(lambda tx: inbound_pdus.remove(tx, 9))

    assert await inbound_pdus.everything(database.scan) == [pdus[1], pdus[0]]


async def test_receipts_for_a_server_are_those_of_our_users_in_its_rooms(database: Database) -> None:
    ours, theirs = "here.example", "there.example"

    async def story(tx: Transaction) -> None:
        for nid in (1, 2):
            row = RoomRow(nid, f"!{nid}", "11", 0, 0, 5, 0, (), 0, 0)
            await rooms.insert(tx, row)
        await rooms.set_servers(tx, 1, {ours: 1, theirs: 1}, 5)
        await rooms.set_servers(tx, 2, {ours: 1}, 5)
        for pos, (nid, user, type_) in enumerate(
            [
                (1, f"@a:{ours}", "m.read"),
                (1, f"@b:{ours}", "m.read.private"),
                (1, f"@c:{theirs}", "m.read"),
                (2, f"@d:{ours}", "m.read"),
                (1, f"@e:{ours}", "m.read"),
            ],
            start=10,
        ):
            await receipts.advance(tx, nid, Receipt(user, type_, "", "$e", 1, 1, pos))

    await database.write(story)

    async def found(after: int, upto: int, limit: int = 9) -> list[tuple[str, str]]:
        page = await receipts.for_server(database.scan, theirs, ours, after, upto, limit=limit)
        return [(room_id, receipt.user_id) for room_id, receipt in page]

    assert await found(0, 99) == [("!1", f"@a:{ours}"), ("!1", f"@e:{ours}")]
    assert await found(10, 99) == [("!1", f"@e:{ours}")]
    assert await found(0, 13) == [("!1", f"@a:{ours}")]
    assert await found(0, 99, limit=1) == [("!1", f"@a:{ours}")]
    assert await stays.servers_owed(database.scan, 13) == {ours, theirs}
    assert await stays.servers_owed(database.scan, 14) == set()
    assert await rooms.share_a_room(database.read, ours, theirs)
    await database.write(lambda tx: rooms.set_servers(tx, 1, {theirs: 0}, 20))
    assert not await rooms.share_a_room(database.read, ours, theirs)
    await database.write(lambda tx: rooms.clear_servers(tx, 2, 30))
