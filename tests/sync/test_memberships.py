"""What is kept of users' memberships is what is on disk, whatever changes while it is read."""

from __future__ import annotations

import asyncio
import random

import pytest

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.rooms.room import Room
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.memberships import UserRooms
from tests.sync.costs import statements
from tests.sync.server import SyncServer
from tests.world import WorldRoom

ROOMS, PEOPLE, STEPS = 5, 3, 60


async def on_disk(server: SyncServer, user_id: str) -> UserRooms:
    return UserRooms.of(await room_storage.local_memberships_of(server.world.db.read, user_id))


async def outside(server: SyncServer, room: Room, user_id: str, membership: str) -> None:
    """An invite of a room elsewhere, or its end, as ``Invites`` records them."""
    pos = server.world.positions.next()
    sender = "@eve:elsewhere.example"
    local = LocalMembership(user_id, room.nid, membership, 0, sender, pos, stripped_state=b"[]")
    await server.world.db.write(
        lambda tx: room_storage.set_outside_membership(tx, room.row(), membership=local)
    )
    server.notifier.announce_memberships(pos, room_nid=room.nid, users=(user_id,))


async def change(
    server: SyncServer,
    chance: random.Random,
    rooms: list[WorldRoom],
    elsewhere: list[Room],
    people: list[str],
) -> None:
    """Somebody comes, goes, is invited, sent away, or forgets, as far as they may."""
    room, person = chance.choice(rooms), chance.choice(people)
    membership = server.world.membership
    act = chance.choice(["join", "leave", "invite", "kick", "forget", "outside", "rescinded"])
    try:
        if act == "join":
            await room.join(person)
        elif act == "leave":
            await room.leave(person)
        elif act == "invite":
            await room.invite(server.world.user("creator"), person)
        elif act == "kick":
            await membership.kick(server.world.user("creator"), room.room_id, person, {})
        elif act == "forget":
            await membership.forget(person, room.room_id)
        else:
            there = "invite" if act == "outside" else "leave"
            await outside(server, chance.choice(elsewhere), person, there)
    except (MatrixError, NotAllowed):
        return


@pytest.mark.parametrize("seed", range(4))
async def test_readers_never_miss_what_was_announced(database: Database, seed: int) -> None:
    server = await SyncServer.open(database)
    chance, world = random.Random(seed), server.world
    kept = server.reading.memberships
    people = [world.user(f"person{number}") for number in range(PEOPLE)]
    rooms = [await world.public_room(world.user("creator")) for _ in range(ROOMS)]
    rules = (await rooms[0].live()).rules
    elsewhere = [
        await world.rooms.of_version(f"!there{number}:elsewhere.example", rules) for number in (1, 2)
    ]
    over = asyncio.Event()

    async def read(person: str) -> int:
        times = 0
        while not over.is_set():
            now = server.notifier.position
            announced = await on_disk(server, person)
            found, at_now = await kept.of(person), await kept.at(person, now)
            for nid, row in announced.by_room.items():
                if row.pos <= now:
                    assert found.by_room[nid].pos >= row.pos
            assert all(row.pos <= now for row in at_now.by_room.values())
            assert at_now.joined == {n for n, row in at_now.by_room.items() if row.membership == "join"}
            times += 1
            await asyncio.sleep(0)
        return times

    async def write() -> None:
        own = random.Random(chance.random())
        for _ in range(STEPS):
            await change(server, own, rooms, elsewhere, people)

    readers = [asyncio.create_task(read(person)) for person in people * 2]
    await asyncio.wait_for(asyncio.gather(write(), write(), write()), 120)
    over.set()
    assert all(times > 1 for times in await asyncio.wait_for(asyncio.gather(*readers), 60))
    for person in people:
        assert await kept.of(person) == await on_disk(server, person)


async def test_a_change_is_all_that_is_read_again(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.world.user("alice")
    rooms = [await server.world.public_room(alice) for _ in range(3)]
    before = await server.reading.memberships.of(alice)
    await rooms[1].leave(alice)
    with statements(monkeypatch) as executed:
        after = await server.reading.memberships.of(alice)
        assert await server.reading.memberships.of(alice) is after
    assert len(executed) == 1
    assert "room_nid IN" in executed[0]
    left = (await rooms[1].live()).nid
    assert before.joined - after.joined == {left}
    assert after == await on_disk(server, alice)


async def test_a_read_that_fails_is_done_again(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await SyncServer.open(sqlite_database)
    alice, memberships = server.world.user("alice"), server.reading.memberships
    rooms = [await server.world.public_room(alice) for _ in range(2)]
    await memberships.of(alice)
    await rooms[0].leave(alice)

    async def broken(*_: object) -> list[LocalMembership]:
        raise OSError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(room_storage, "local_memberships_in_rooms", broken)
        with pytest.raises(OSError, match="away"):
            await memberships.of(alice)
    assert await memberships.of(alice) == await on_disk(server, alice)


async def test_a_room_that_is_forgotten_is_known_to_be(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    await room.leave(alice)
    nid = (await room.live()).nid
    assert not (await server.reading.memberships.of(alice)).by_room[nid].forgotten
    await server.world.membership.forget(alice, room.room_id)
    assert (await server.reading.memberships.of(alice)).by_room[nid].forgotten
