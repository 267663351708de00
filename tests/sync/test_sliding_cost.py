"""What sliding sync costs does not depend on how many rooms one is in: counted, never timed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.storage.database import Database
from tests.sync.costs import calls_of, statements
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of, top
from tests.world import WorldRoom

FEW, MANY = 25, 500
FILTERS = {"not_room_types": ["m.space"], "not_tags": ["m.lowpriority"]}
LISTS = {"lists": {"all": top(19), "others": top(19, filters=FILTERS)}}


async def in_rooms(server: SyncServer, count: int) -> tuple[SlidingClient, list[WorldRoom]]:
    """Somebody in that many rooms, each with a message."""
    user_id = server.world.user(f"in{count}")
    rooms = [await server.world.public_room(user_id, name=f"Room {number}") for number in range(count)]
    for room in rooms:
        await room.send(user_id, "hello")
    return SlidingClient(sliding_of(server), user_id), rooms


@pytest.fixture
async def people(sqlite_database: Database) -> list[tuple[SlidingClient, list[WorldRoom]]]:
    """Somebody in few rooms and somebody in many, on one server."""
    server = await SyncServer.open(sqlite_database)
    return [await in_rooms(server, count) for count in (FEW, MANY)]


async def test_requests_cost_the_same_in_few_rooms_and_in_many(
    people: list[tuple[SlidingClient, list[WorldRoom]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, quiet, one_message, out_of_sight, calls = [], [], [], [], []
    for phone, rooms in people:
        with statements(monkeypatch) as executed:
            response = await phone.sync(**LISTS)
        assert response["lists"]["all"] == {"count": len(rooms)}
        assert len(response["rooms"]) == 20
        first.append(len(executed))
        with statements(monkeypatch) as executed:
            assert (await phone.sync(**LISTS))["rooms"] == {}
        quiet.append(len(executed))
        await rooms[0].send(phone.user_id, "from the bottom to the top")
        with statements(monkeypatch) as executed:
            response, called = await calls_of(phone.sync(**LISTS))
        assert list(response["rooms"]) == [rooms[0].room_id]
        one_message.append(len(executed))
        calls.append(called)
        await rooms[1].send(phone.user_id, "nobody looks at the bottom")
        below = {"lists": {"all": top() | {"ranges": [[len(rooms) - 2, len(rooms) - 1]]}}}
        await phone.sync(**below)
        with statements(monkeypatch) as executed:
            assert (await phone.sync(**below))["rooms"] == {}
        out_of_sight.append(len(executed))
    assert abs(first[1] - first[0]) <= 5, "statements of a first request"
    assert quiet == [0, 0], "statements of a request when nothing happened"
    assert one_message[0] == one_message[1] <= 8, "statements of a request after one message"
    assert out_of_sight == [0, 0]
    assert calls[1] < calls[0] * 1.2, "functions called for a request after one message"


async def test_all_rooms_in_sight_cost_no_more_once_they_are_told(
    people: list[tuple[SlidingClient, list[WorldRoom]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = {"lists": {"all": top(10_000)}}
    calls = []
    for phone, rooms in people:
        told = 0
        while told < len(rooms):
            told += len((await phone.sync(**everything))["rooms"])
        await rooms[0].send(phone.user_id, "one of them")
        with statements(monkeypatch) as executed:
            response, called = await calls_of(phone.sync(**everything))
        assert list(response["rooms"]) == [rooms[0].room_id]
        assert len(executed) <= 8
        calls.append(called)
    assert calls[1] < calls[0] * 1.2


async def test_waiting_registers_nothing_anew(
    people: list[tuple[SlidingClient, list[WorldRoom]]],
) -> None:
    calls = []
    for phone, rooms in people:
        await phone.sync(**LISTS)
        waiting = phone.wait(**LISTS)
        await asyncio.sleep(0)
        _, called = await calls_of(_woken(rooms[-1], phone, waiting))
        calls.append(called)
    assert calls[1] < calls[0] * 1.2


async def _woken(room: WorldRoom, phone: SlidingClient, waiting: asyncio.Task[Any]) -> None:
    await room.send(phone.user_id, "wake up")
    assert list((await asyncio.wait_for(waiting, 60))["rooms"]) == [room.room_id]
