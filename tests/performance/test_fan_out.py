"""What one message costs where many people wait for it, and where many wait for something else: counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from homeserver.storage.database import Database
from homeserver.sync import client_events
from homeserver.sync.notifier import Notifier
from homeserver.sync.sync import Sync
from homeserver.sync.watch import Watch
from tests.performance.counting import counted_calls, counted_statements, counted_tasks
from tests.sync.server import Client, SyncServer, bodies
from tests.world import WorldRoom

PEOPLE = 50
FEW, MANY = 5, 200


async def room_of(server: SyncServer, count: int, name: str = "member") -> tuple[WorldRoom, list[Client]]:
    """A room and its people, all of whom know everything."""
    people = [server.client(f"{name}{number}") for number in range(count)]
    room = await server.world.public_room(people[0].user_id)
    for one in people[1:]:
        await room.join(one.user_id)
    for one in people:
        await one.sync()
        await one.sync()  # what is told is remembered from the second one on
    return room, people


async def waiting(people: list[Client]) -> list[asyncio.Task[dict[str, Any]]]:
    """Their long polls, all of which wait."""
    polls = [one.wait() for one in people]
    for _ in range(20):
        await asyncio.sleep(0)
    return polls


async def test_a_long_poll_of_somebody_who_knows_everything_reads_nothing_until_there_is_news(
    sqlite_database: Database,
) -> None:
    server = await SyncServer.open(sqlite_database)
    room, (alice, bob) = await room_of(server, 2)

    async with counted_statements(sqlite_database) as statements:
        with counted_calls(Sync, "collect") as collected:
            poll = bob.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert statements.read == []
            assert collected == []
            await room.send(alice.user_id, "hello")
            told = await poll

    assert bodies(told["rooms"]["join"][room.room_id]) == ["hello"]
    assert len(collected) == 1


async def test_a_message_is_read_once_by_each_who_waits_and_written_once_for_all(
    sqlite_database: Database,
) -> None:
    server = await SyncServer.open(sqlite_database)
    room, people = await room_of(server, PEOPLE)
    polls = await waiting(people)

    with (
        counted_calls(Sync, "collect") as collected,
        counted_calls(client_events, "_encode") as written,
        counted_tasks() as tasks,
    ):
        await room.send(people[0].user_id, "hello")
        told = await asyncio.gather(*polls)

    assert all(bodies(one["rooms"]["join"][room.room_id]) == ["hello"] for one in told)
    assert len(collected) == PEOPLE
    assert len(written) == 1
    assert tasks == []


async def test_those_who_wait_are_served_a_few_at_a_time(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    room, people = await room_of(server, PEOPLE)
    polls = await waiting(people)
    turn, in_turn = 0, Counter[int]()

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        if not all(poll.done() for poll in polls):
            asyncio.get_running_loop().call_soon(count_turns)

    count_turns()
    for poll in polls:
        poll.add_done_callback(lambda _: in_turn.update((turn,)))
    await room.send(people[0].user_id, "hello")
    await asyncio.gather(*polls)

    assert sum(in_turn.values()) == PEOPLE
    assert max(in_turn.values()) <= PEOPLE // 4


async def test_who_waits_for_other_rooms_costs_a_message_nothing(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    room, people = await room_of(server, FEW)
    _, others = await room_of(server, PEOPLE, "other")
    polls = await waiting([*people, *others])

    with counted_calls(Watch, "wake") as woken, counted_calls(Notifier, "wake") as announced:
        await room.send(people[0].user_id, "hello")
        await asyncio.gather(*polls[:FEW])

    assert len(announced) == 1
    assert len(woken) == FEW
    assert not any(poll.done() for poll in polls[FEW:])
    for poll in polls[FEW:]:
        poll.cancel()


async def test_beginning_to_wait_does_not_depend_on_how_many_rooms_somebody_is_in(
    sqlite_database: Database,
) -> None:
    server = await SyncServer.open(sqlite_database)

    async def registrations(rooms: int) -> int:
        client = server.client(f"in{rooms}")
        for _ in range(rooms):
            await server.world.public_room(client.user_id)
        await client.sync()
        await client.sync(timeout=0.001)
        with counted_calls(Notifier, "add") as added, counted_calls(Notifier, "remove") as removed:
            for _ in range(3):
                await client.sync(timeout=0.001)
        return len(added) + len(removed)

    assert await registrations(FEW) == await registrations(MANY) == 0
