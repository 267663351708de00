"""One event for a request however often it comes: raced, given up, after many others."""

from __future__ import annotations

import asyncio

import pytest

from homeserver.rooms import used_ids
from homeserver.rooms.send import AlsoFor, Draft
from homeserver.rooms.transactions import Transactions
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.world import World, WorldRoom

TEXT = {"msgtype": "m.text", "body": "hello"}


class Sender:
    """A device that sends into a room; ``sent`` counts what was really sent."""

    def __init__(self, room: WorldRoom, user_id: str, device_id: str = "PHONE") -> None:
        self.room, self.user_id, self.device_id = room, user_id, device_id
        self.world = room.world
        self.sent = 0

    async def send(self, transactions: Transactions, txn_id: str) -> str:
        async def send(also: AlsoFor) -> StoredEvent:
            self.sent += 1
            draft = Draft(self.user_id, "m.room.message", TEXT)
            return await self.world.send.send(self.room.room_id, draft, also)

        return await transactions.once(self.user_id, self.device_id, "send", txn_id, send)


@pytest.fixture
async def sender(sqlite_database: Database) -> Sender:
    world = await World.open(sqlite_database)
    alice = world.user("alice")
    return Sender(await world.public_room(alice), alice)


def transactions_of(sender: Sender) -> Transactions:
    return Transactions(sender.world.db, sender.world.clock, sender.world.core.transactions)


async def test_a_device_is_known_again_when_it_was_let_go(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(used_ids, "MOST", 200)
    transactions = transactions_of(sender)
    first = await sender.send(transactions, "1")
    others = [Sender(sender.room, sender.user_id, f"DEVICE{number}") for number in range(5)]
    for other in others:
        await other.send(transactions, "1")
    assert await sender.send(transactions, "1") == first
    assert (sender.sent, [other.sent for other in others]) == (1, [1] * 5)


async def test_a_device_that_sends_very_much_is_still_answered_alike(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(used_ids, "MOST_OF_DEVICE", 4)
    monkeypatch.setattr(used_ids, "MOST_LOOKED_UP", 2)
    transactions = transactions_of(sender)
    ids = [await sender.send(transactions, str(number)) for number in range(12)]
    assert [await sender.send(transactions, str(number)) for number in range(12)] == ids
    assert sender.sent == 12


async def test_what_a_device_sends_while_it_is_looked_up_is_known_afterwards(sender: Sender) -> None:
    transactions = transactions_of(sender)
    ids = await asyncio.gather(*(sender.send(transactions, str(number)) for number in range(6)))
    assert [await sender.send(transactions, str(number)) for number in range(6)] == ids
    assert sender.sent == 6


async def test_the_second_request_is_answered_when_the_first_was_given_up(sender: Sender) -> None:
    transactions = transactions_of(sender)
    first = asyncio.create_task(sender.send(transactions, "1"))
    second = asyncio.create_task(sender.send(transactions, "1"))
    await asyncio.sleep(0)  # both have begun: the first looks the device up
    first.cancel()
    event_id = await second
    assert first.cancelled()
    assert await sender.send(transactions, "1") == event_id
    assert sender.sent == 1


async def test_a_request_that_waited_for_one_that_failed_fails_alike(sender: Sender) -> None:
    transactions = transactions_of(sender)

    async def fail(_: AlsoFor) -> StoredEvent:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    both = [transactions.once(sender.user_id, "PHONE", "send", "1", fail) for _ in range(2)]
    errors = await asyncio.gather(*both, return_exceptions=True)
    assert [type(error) for error in errors] == [ZeroDivisionError, ZeroDivisionError]
    await sender.send(transactions, "1")
    assert sender.sent == 1
