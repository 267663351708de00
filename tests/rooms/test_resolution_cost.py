"""What resolving states reads from the database: as much as they differ, however old the room is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from tests.rooms.counting import Counting
from tests.rooms.test_timeline import fill
from tests.world import World, WorldRoom

#: A resolution reads no more often than this, and no more rows.
MOST_READS, MOST_ROWS = 60, 600


@dataclass
class Cost:
    reads: int
    rows: int


async def fork(world: World, room: WorldRoom) -> None:
    """Two branches that set the topic and the levels, and meet."""
    alice = world.user("alice")
    base = await room.send(alice, "base")
    users = {} if (await room.live()).rules.hash_room_ids else {alice: 100}
    for number in range(2):
        topic = Draft(alice, "m.room.topic", {"topic": str(number)}, state_key="")
        one = await room.append_after([base], topic)
        levels = Draft(alice, "m.room.power_levels", {"users": users, "ban": number}, state_key="")
        await room.append_after([one], levels)
    await room.send(alice, "met")


async def cost_of_a_fork(counting: Counting, world: World, room: WorldRoom) -> Cost:
    """Of one such fork, by a server that has just started: nothing is remembered from before."""
    await fork(world, room)
    again = await World.open(counting)  # type: ignore[arg-type]
    there = WorldRoom(again, room.room_id)
    await again.rooms.get(room.room_id)
    reads, rows = counting.reads, counting.rows
    await fork(again, there)
    await again.background.close()
    return Cost(counting.reads - reads, counting.rows - rows)


async def test_a_fork_costs_what_differs_and_not_what_the_room_has_been_through(database: Database) -> None:
    counting = Counting(database)
    world = await World.open(counting)  # type: ignore[arg-type]
    alice = world.user("alice")
    costs = []
    for changes in (20, 200):
        room = await world.public_room(alice, version="11")
        for number in range(changes):
            await room.set_state(alice, "m.room.name", {"name": str(number)})
            await room.send(alice, str(number))
        costs.append(await cost_of_a_fork(counting, world, room))
    young, old = costs
    assert old.reads <= young.reads + 5
    assert old.rows <= young.rows + 100
    await world.background.close()


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_fork_in_a_room_of_50000_members_reads_few_of_them(
    sqlite_database: Database, version: str
) -> None:
    counting = Counting(sqlite_database)
    world = await World.open(counting)  # type: ignore[arg-type]
    room = await world.public_room(world.user("alice"), version=version)
    await fill(world, room, 50_000)
    cost = await cost_of_a_fork(counting, world, room)
    assert cost.reads <= MOST_READS
    assert cost.rows <= MOST_ROWS
    await world.background.close()


async def fork_of_two(world: World, room: WorldRoom, members: list[str]) -> None:
    """Members rename themselves on two branches, one of which names the room too; and they meet."""
    base = await room.send(members[0], "base")
    ends = []
    for side in range(2):
        end = base
        for member in members[side::2]:
            profile = {"membership": "join", "displayname": f"{side}"}
            end = await room.append_after([end], Draft(member, "m.room.member", profile, state_key=member))
        ends.append(end)
    name = Draft(members[0], "m.room.name", {"name": "On one side only"}, state_key="")
    await room.append_after([ends[0]], name)
    await room.send(members[1], "met")


async def test_a_fork_of_old_members_costs_what_differs_and_not_all_who_came_after_them(
    database: Database,
) -> None:
    counting = Counting(database)
    world = await World.open(counting)  # type: ignore[arg-type]
    rows = []
    for newcomers in (60, 200):
        room = await world.public_room(world.user("alice"), version="11")
        await room.set_state(world.user("alice"), "m.room.name", {"name": "Long ago"})
        members = [world.user("alice"), *(world.user(f"old{number}") for number in range(5))]
        for member in [*members[1:], *(world.user(f"new{number}") for number in range(newcomers))]:
            await room.join(member)
        again = await World.open(counting)  # type: ignore[arg-type]
        there = WorldRoom(again, room.room_id)
        await again.rooms.get(room.room_id)
        before = counting.rows
        await fork_of_two(again, there, members)
        rows.append(counting.rows - before)
        await again.background.close()
    few, many = rows
    assert many <= few + 20
    await world.background.close()
