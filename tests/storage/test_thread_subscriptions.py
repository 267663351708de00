"""Thread subscriptions in both databases."""

from __future__ import annotations

from functools import partial

from homeserver.storage import thread_subscriptions as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.thread_subscriptions import Subscription

ALICE, BOB = "@alice:x", "@bob:x"


async def put(database: Database, user_id: str, *subscriptions: Subscription) -> None:
    async def work(tx: Transaction) -> None:
        for nid in {one.room_nid for one in subscriptions}:
            await tx.execute(
                """INSERT INTO rooms (room_nid, room_id, version, epoch, state_ver, last_pos, depth, tips,
                                      joined_members, invited_members)
                   VALUES ($1, $2, '12', 0, 0, 0, 0, $3, 0, 0) ON CONFLICT DO NOTHING""",
                *(nid, f"!{nid}", b""),
            )
        for one in subscriptions:
            await storage.put(tx, user_id, one)

    await database.write(work)


async def test_what_is_said_of_a_thread_takes_the_place_of_what_was_said_before(database: Database) -> None:
    await put(database, ALICE, Subscription(1, "$a", True, True, 5))
    ended = Subscription(1, "$a", False, False, 9, 9)
    await put(database, ALICE, ended)
    assert await storage.find(database.read, ALICE, 1, "$a") == ended
    assert await storage.find(database.read, BOB, 1, "$a") is None


async def test_the_threads_of_a_room_that_somebody_is_subscribed_to(database: Database) -> None:
    await put(
        database,
        ALICE,
        Subscription(1, "$a", True, True, 5),
        Subscription(1, "$b", False, False, 6, 6),
        Subscription(1, "$c", True, False, 7),
        Subscription(2, "$d", True, False, 8),
    )
    assert await storage.roots_in(database.read, ALICE, 1, limit=10) == ["$c", "$a"]
    assert await storage.roots_in(database.read, ALICE, 1, limit=1) == ["$c"]
    assert await storage.roots_in(database.read, BOB, 1, limit=10) == []


async def test_changes_are_found_between_two_positions_newest_first(database: Database) -> None:
    subscriptions = [Subscription(nid, f"${nid}", True, False, 10 * nid) for nid in (1, 2, 3, 4)]
    await put(database, ALICE, *subscriptions)
    await put(database, BOB, Subscription(1, "$1", True, False, 25))
    found = await storage.changed(database.read, ALICE, after=10, upto=40, limit=2)
    assert found == [("!4", subscriptions[3]), ("!3", subscriptions[2])]
    assert await storage.changed(database.read, ALICE, after=10, upto=20, limit=9) == [
        ("!2", subscriptions[1])
    ]


async def test_somebody_who_is_forgotten_is_subscribed_to_nothing(database: Database) -> None:
    one = Subscription(1, "$1", True, False, 1)
    await put(database, ALICE, one)
    await put(database, BOB, one)
    await database.write(partial(storage.remove_all, user_id=ALICE))
    assert await storage.find(database.read, ALICE, 1, "$1") is None
    assert await storage.find(database.read, BOB, 1, "$1") == one
