"""What a user's news cost does not depend on how many rooms they are in: counted, never timed.

In ``/sync`` as in sliding sync; news are those of the user, and those of rooms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from homeserver.rooms.receipts import READ
from homeserver.storage.database import Database
from tests.sync.costs import calls_of, statements
from tests.sync.server import Client, SyncServer
from tests.sync.sliding_client import REQUIRED_STATE, SlidingClient, extended, top
from tests.world import WorldRoom

FEW, MANY = 25, 500
EXTENSIONS = ("to_device", "e2ee", "account_data", "receipts", "typing", "profiles")


@dataclass
class Person:
    """Somebody in some rooms, at a client of ``/sync`` and at one of sliding sync."""

    server: SyncServer
    user_id: str
    rooms: list[WorldRoom]
    laptop: Client
    phone: SlidingClient

    @classmethod
    async def who_is_in(cls, server: SyncServer, count: int) -> Person:
        user_id = server.world.user(f"in{count}")
        rooms = [await server.world.public_room(user_id) for _ in range(count)]
        await server.add_device(user_id, "PHONE")
        phone = SlidingClient(extended(server), user_id)
        return cls(server, user_id, rooms, Client(server, user_id), phone)

    async def look(self, timeout: float = 0) -> dict[str, Any]:
        """The next response of sliding sync: direct chats (none) and the last room are looked at."""
        watched = {"timeline_limit": 1, "required_state": REQUIRED_STATE}
        return await self.phone.sync(
            timeout=timeout,
            lists={"chats": top(filters={"is_dm": True})},
            room_subscriptions={self.rooms[-1].room_id: watched},
            extensions={name: {"enabled": True} for name in EXTENSIONS},
        )


Act: TypeAlias = Callable[[Person], Awaitable[object]]


async def message_to_the_device(who: Person) -> None:
    messages = {who.user_id: {"*": {"to": "all"}}}
    await who.server.to_device.send(who.user_id, None, "m.test", "txn", messages)


async def account_data(who: Person) -> None:
    await who.server.account_data.set_content(who.user_id, "com.example", {"some": "thing"})


async def devices_change(who: Person) -> None:
    who.server.encryption.changes.announce_to(who.user_id, who.server.world.positions.next())


async def own_receipt(who: Person) -> None:
    newest = (await who.rooms[-1].live()).recent[-1]
    await who.server.receipts.read(who.user_id, who.rooms[-1].room_id, READ, newest.id)


async def own_typing(who: Person) -> None:
    await who.server.typing.set_typing(who.user_id, who.rooms[-1].room_id, True)


async def message_in_sight(who: Person) -> None:
    await who.rooms[-1].send(who.user_id, "in sight")


async def message_out_of_sight(who: Person) -> None:
    await who.rooms[0].send(who.user_id, "out of sight")


ACTS: list[Act] = [
    message_to_the_device,
    account_data,
    devices_change,
    own_receipt,
    own_typing,
    message_in_sight,
    message_out_of_sight,
]


async def test_news_cost_the_same_in_few_rooms_and_in_many(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await SyncServer.open(sqlite_database)
    costs: dict[str, list[tuple[int, int]]] = {}
    for count in (FEW, MANY):
        who = await Person.who_is_in(server, count)
        for ask in (who.laptop.sync, who.look):
            await ask()
            for act in ACTS:
                await act(who)
                await ask()  # what a first time costs is not meant
                await act(who)
                with statements(monkeypatch) as executed:
                    _, calls = await calls_of(ask())
                costs.setdefault(f"{act.__name__}, {ask.__name__}", []).append((len(executed), calls))
    for what, ((few_statements, few_calls), (many_statements, many_calls)) in costs.items():
        assert many_statements == few_statements <= 20, f"statements: {what}"
        assert many_calls < few_calls * 1.2 + 20, f"functions called: {what}"


async def test_waiting_registers_the_rooms_only_once(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    costs = []
    for count in (FEW, MANY):
        who = await Person.who_is_in(server, count)
        await who.laptop.sync()
        await asyncio.wait_for(_woken_by(who, account_data), 60)
        _, calls = await calls_of(asyncio.wait_for(_woken_by(who, message_in_sight), 60))
        costs.append(calls)
    assert costs[1] < costs[0] * 1.2


async def _woken_by(who: Person, act: Act) -> dict[str, Any]:
    waiting = who.laptop.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done(), "the request was to wait"
    await act(who)
    return await waiting


async def test_a_change_of_many_rooms_wakes_a_person_once(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    who = await Person.who_is_in(server, FEW)
    await who.laptop.sync()
    waiting = who.laptop.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    rooms = [(await room.live()).nid for room in who.rooms]
    assert server.notifier.wake(rooms=rooms, users=[who.user_id]) == 1
    await account_data(who)
    assert (await asyncio.wait_for(waiting, 60))["account_data"]["events"]
