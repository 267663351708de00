"""What reading costs: it does not grow with rooms, members and events that nobody asked about."""

from __future__ import annotations

import asyncio
from typing import Any

from homeserver.rooms.recent_changes import MOST
from homeserver.rooms.visibility import only_events
from homeserver.storage.database import Database
from homeserver.sync import client_events
from homeserver.sync.client_events import Form
from tests.performance.counting import counted_calls, counted_statements
from tests.sync.server import Client, SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of, top
from tests.world import WorldRoom

FEW, MANY = 5, 50
#: One slice of a first sync, and several.
ONE_SLICE, SLICES = 25, 3


async def in_rooms(server: SyncServer, count: int) -> tuple[Client, list[WorldRoom]]:
    """Somebody in that many rooms, in each of which somebody else has written to them."""
    user_id, other = server.world.user(f"in{count}"), server.world.user("other")

    async def room(number: int) -> WorldRoom:
        made = await server.world.public_room(user_id, name=f"Room {number}")
        await made.join(other)
        await made.send(other, "hello")
        return made

    rooms = await asyncio.gather(*map(room, range(count)))
    return Client(server, user_id), rooms


async def test_an_empty_sync_reads_nothing(database: Database) -> None:
    server = await SyncServer.open(database)
    for count in (FEW, MANY):
        client, _ = await in_rooms(server, count)
        await client.sync()
        async with counted_statements(database) as seen:
            assert (await client.sync())["rooms"] == {}
        assert seen.read == []


async def test_a_sync_with_one_message_reads_nothing(database: Database) -> None:
    server = await SyncServer.open(database)
    for count in (FEW, MANY):
        client, rooms = await in_rooms(server, count)
        await client.sync()
        await rooms[-1].send(client.user_id, "one")
        async with counted_statements(database) as seen:
            assert len((await client.sync())["rooms"]["join"]) == 1
        assert seen.read == []


async def test_sliding_sync_after_a_message_reads_nothing(database: Database) -> None:
    server = await SyncServer.open(database)
    client, rooms = await in_rooms(server, FEW)
    phone = SlidingClient(sliding_of(server), client.user_id)
    await phone.sync(lists={"all": top(FEW - 1)})
    await rooms[-1].send(client.user_id, "one")
    async with counted_statements(database) as seen:
        told = await phone.sync(lists={"all": top(FEW - 1)})
    assert list(told["rooms"]) == [rooms[-1].room_id]
    assert seen.read == []


async def test_a_first_sync_reads_by_the_slice_and_not_by_the_room(database: Database) -> None:
    server = await SyncServer.open(database)
    costs = []
    for count in (ONE_SLICE, ONE_SLICE * SLICES):
        client, _ = await in_rooms(server, count)
        await client.sync()  # unread counts, and the person's memberships, are worked out once
        client.token = None
        async with counted_statements(database) as seen:
            assert len((await client.sync())["rooms"]["join"]) == count
        costs.append(len(seen.read))
    assert costs[0] <= 10
    assert costs[1] - costs[0] <= 4 * (SLICES - 1)


async def test_an_event_is_serialised_once_for_all_its_readers(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    said = await room.send(alice.user_id, "to be serialised once")
    with counted_calls(client_events, "_encode") as encoded:
        for reader in (alice, bob, alice):
            reader.token = None
            events = (await reader.sync())["rooms"]["join"][room.room_id]["timeline"]["events"]
            assert events[-1]["event_id"] == said.id
    assert [args[0].event_id for args in encoded].count(said.id) == 1
    assert len(encoded) == len({args[0].event_id for args in encoded})


async def test_a_page_of_messages_is_one_query(database: Database) -> None:
    server = await SyncServer.open(database)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    for number in range(80):
        await room.send(alice.user_id, f"message {number}")
    await page(server, alice.user_id, room, 1, None)  # who alice is in the room is read once
    for is_old in (False, True):
        for limit in (1, 10, 30):
            start = server.world.positions.last - 40 if is_old else None
            async with counted_statements(database) as seen:
                assert len(await page(server, alice.user_id, room, limit, start)) == limit
            assert len(seen.read) == 1


async def page(server: SyncServer, user_id: str, room: WorldRoom, limit: int, start: int | None) -> list[Any]:
    history = server.reading.history
    view = await history.view(user_id, room.room_id, "PHONE")
    found = await history.backward(view, start, None, limit, lambda stored: True)
    events = only_events(found.events)
    looked_up = await server.client_events.look_up(user_id, "PHONE", events, told=found.told)
    return await server.client_events.write(
        view.room, user_id, "PHONE", found.events, Form(), looked_up=looked_up
    )


async def test_a_window_of_rooms_takes_as_many_statements_whatever_is_in_it(database: Database) -> None:
    server = await SyncServer.open(database)
    client, _ = await in_rooms(server, ONE_SLICE)
    costs = []
    for last in (4, 24):
        await SlidingClient(sliding_of(server), client.user_id).sync(lists={"all": top(last)})
        phone = SlidingClient(sliding_of(server), client.user_id, device=f"PHONE{last}")
        async with counted_statements(database) as seen:
            assert len((await phone.sync(lists={"all": top(last)}))["rooms"]) == last + 1
        costs.append(len(seen.read))
    assert costs[0] == costs[1]


async def test_what_somebody_was_in_a_room_is_read_once_however_often_its_state_changes(
    database: Database,
) -> None:
    server = await SyncServer.open(database)
    alice, bob = server.world.user("alice"), server.world.user("bob")
    room = await server.world.public_room(alice)
    await room.join(bob)
    for number in range(2 * MOST):
        await room.set_state(alice, "com.example.counter", {"number": number})
    live = await room.live()
    assert not live.state_changes.is_whole
    joined = await server.visibility.joined_since(live, bob, live.last_pos)
    await room.set_state(alice, "com.example.counter", {"number": -1})
    async with counted_statements(database) as seen:
        assert await server.visibility.joined_since(live, bob, live.last_pos) == joined
    assert seen.read == []
    await room.leave(bob)
    assert await server.visibility.joined_since(live, bob, live.last_pos) is None
