"""What making and joining rooms costs, counted: it does not grow with the room, and nothing is done twice."""

from __future__ import annotations

import pytest

from homeserver.protocol import signing
from homeserver.storage import user_directory
from homeserver.storage.database import Database
from tests.performance.counting import Statements, counted_calls, counted_statements, counted_tasks
from tests.sync.server import SyncServer
from tests.users.test_user_directory import Town, joins_from_elsewhere

FEW, MANY = 10, 2_000


async def statements_of_a_join(database: Database, members: int) -> tuple[Statements, list[str]]:
    server = await SyncServer.open(database)
    world = server.world
    made = await world.public_room(world.user("alice"))
    room = await made.live()
    alice = room.members[world.user("alice")]
    room.members |= {world.user(f"member{number}"): alice for number in range(members)}
    room.joined_members += members
    await made.join(world.user("bob"))

    async with counted_statements(database) as statements:
        with counted_tasks() as tasks:
            await made.join(world.user("carol"))
    return statements, tasks


@pytest.mark.parametrize("members", [FEW, MANY])
async def test_a_join_is_one_write_a_few_reads_and_no_task(sqlite_database: Database, members: int) -> None:
    statements, tasks = await statements_of_a_join(sqlite_database, members)

    assert statements.written.count("COMMIT") == 1
    assert len(statements.written) <= 20
    assert len(statements.read) <= 3
    assert tasks == []


async def test_a_new_room_is_one_write_and_each_of_its_events_is_signed_once(
    sqlite_database: Database,
) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.world.user("alice")
    await server.world.public_room(alice, name="First")

    async with counted_statements(sqlite_database) as statements:
        with counted_calls(signing.SigningKey, "sign") as signed, counted_tasks() as tasks:
            room = await server.world.public_room(alice, name="Second")

    assert len(signed) == len(await room.timeline())
    assert statements.written.count("COMMIT") == 1
    assert len(statements.read) <= 3
    assert tasks == []


async def test_the_user_directory_is_done_with_all_local_rooms_at_once(sqlite_database: Database) -> None:
    town = await Town.open(sqlite_database)
    alice, bob = await town.person("alice"), await town.person("bob")
    await town.reader.work_off()

    async def written_for(rooms: int) -> int:
        for _ in range(rooms):
            await (await town.world.public_room(alice)).join(bob)
        with counted_calls(user_directory, "set_progress") as written:
            await town.reader.work_off()
        return len(written)

    assert await written_for(1) == await written_for(FEW) == 1


async def test_what_happens_elsewhere_in_a_room_of_ours_is_still_found(sqlite_database: Database) -> None:
    town = await Town.open(sqlite_database)
    alice = await town.person("alice")
    room = await town.world.public_room(alice)
    await town.reader.work_off()

    zoe = await joins_from_elsewhere(room, "zoe", "Zoe")
    assert await town.find(alice, "zoe") == [zoe]
    await room.set_state(zoe, "m.room.member", {"membership": "leave"}, state_key=zoe)
    assert await town.find(alice, "zoe") == []
