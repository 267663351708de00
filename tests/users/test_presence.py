"""What presence costs: writes, wake-ups and EDUs; and who is present with several devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.rooms.edus import RemoteEdus
from homeserver.storage.database import Database
from homeserver.users.presence import Presence
from tests.rooms.counting import Counting
from tests.sync.server import SentEdus
from tests.world import SERVER, World, WorldRoom


class CountingWrites(Counting):
    """Counts transactions too."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.writes = 0
        self._write = db.write
        self.write = self._counted_write  # type: ignore[assignment]

    def _counted_write(self, work: Any) -> Any:
        self.writes += 1
        return self._write(work)


class Watched:
    """Presence in a world, with everything it does counted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.db = CountingWrites(world.db)
        self.edus = SentEdus()
        self.presence = presence_of(world, self.db, self.edus)

    def told(self) -> list[tuple[str, str]]:
        """Server and user of each update that was sent."""
        return [(server, update["user_id"]) for server, _, edu in self.edus.sent for update in edu["push"]]


def presence_of(world: World, db: Database, edus: RemoteEdus) -> Presence:
    positions = iter(range(1, 1_000_000))
    presence = Presence(
        db=db,
        clock=world.clock,
        news=world.core.notifier,
        edus=edus,
        next_position=lambda: next(positions),
        server_name=SERVER,
    )
    world.core.notifier.listeners.append(presence.new_events)
    return presence


async def joins(room: WorldRoom, user_id: str) -> None:
    await room.set_state(user_id, "m.room.member", {"membership": "join"}, state_key=user_id)


@pytest.fixture
async def watched(sqlite_database: Database) -> Watched:
    return Watched(await World.open(sqlite_database))


async def a_user_with_contacts(world: World, *, contacts: int, servers: int) -> tuple[str, list[WorldRoom]]:
    """Somebody with contacts on some servers, in ten rooms."""
    alice = world.user("alice")
    rooms = [await world.public_room(alice) for _ in range(10)]
    for number in range(contacts):
        await joins(rooms[number % 10], f"@contact{number}:server{number % servers}.example")
    return alice, rooms


@pytest.mark.parametrize("servers", [1, 50])
async def test_who_goes_online_with_a_thousand_contacts_costs_one_write_and_an_edu_a_server(
    watched: Watched, servers: int
) -> None:
    alice, rooms = await a_user_with_contacts(watched.world, contacts=1_000, servers=servers)
    watched.db.writes = watched.db.reads = watched.db.rows = 0
    bob = watched.world.user("bob")
    nids = [(await room.live()).nid for room in rooms]

    with watched.world.core.notifier.waiter(bob, nids) as waiter:
        await watched.presence.synced(alice, "online", "PHONE")
        assert (watched.db.writes, watched.edus.sent) == (0, [])
        await watched.presence.flush()
        assert await waiter.wait(0)

    assert watched.db.writes == 1
    assert sorted(watched.told()) == sorted((f"server{each}.example", alice) for each in range(servers))
    # Its own presence, its rooms and the servers in them: nothing for each of the contacts.
    assert watched.db.reads <= 3
    assert watched.db.rows <= 10 + servers + 1


async def test_many_changes_of_one_moment_are_told_and_stored_at_once(watched: Watched) -> None:
    world = watched.world
    everybody = [world.user(f"user{number}") for number in range(20)]
    room = await world.public_room(everybody[0])
    for user_id in everybody[1:]:
        await room.join(user_id)
    await joins(room, "@carol:far.example")
    watched.db.writes = 0
    woken = []
    watched.world.core.notifier.wake = lambda **what: woken.append(what) or 0  # type: ignore[method-assign, func-returns-value]

    for user_id in everybody:
        await watched.presence.set_state(user_id, "online", None, "PHONE")
        await watched.presence.set_state(user_id, "unavailable", "tea", "PHONE")
    await watched.presence.flush()

    assert watched.db.writes == 1
    assert len(woken) == 1
    assert sorted(watched.told()) == sorted(("far.example", user_id) for user_id in everybody)
    assert {edu["push"][0]["presence"] for _, _, edu in watched.edus.sent} == {"unavailable"}
    await watched.presence.flush()
    assert watched.db.writes == 1


async def test_the_more_there_was_to_tell_the_longer_until_the_next_time(watched: Watched) -> None:
    world, alice = watched.world, watched.world.user("alice")
    room = await world.public_room(alice)
    nid = (await room.live()).nid
    waiters = [world.core.notifier.waiter(f"@{number}:{SERVER}", [nid]) for number in range(1_000)]
    for waiter in waiters:
        world.core.notifier.add(waiter, "", [nid])

    await watched.presence.set_state(alice, "online")
    await watched.presence.flush()
    await watched.presence.set_state(alice, "unavailable")
    for seconds, writes in ((0, 1), (4.9, 1), (0.2, 2)):
        world.clock.advance(seconds)
        await watched.presence.flush()
        assert watched.db.writes == writes


async def test_being_active_is_told_once_a_minute_at_most(watched: Watched) -> None:
    world, alice = watched.world, watched.world.user("alice")
    await joins(await world.public_room(alice), "@carol:far.example")
    watched.db.writes = 0
    await watched.presence.synced(alice, "online", "PHONE")
    watched.presence.sync_begins(alice, "PHONE")
    await watched.presence.flush()

    for _ in range(50):
        world.clock.advance(1)
        await watched.presence.active(alice)
        watched.presence.expire()
        await watched.presence.flush()
    assert len(watched.told()) == watched.db.writes == 1

    world.clock.advance(61)
    watched.presence.expire()
    await watched.presence.flush()
    (*_, (_, _, edu)) = watched.edus.sent
    assert (edu["push"][0]["presence"], edu["push"][0]["currently_active"]) == ("online", False)
    world.clock.advance(1)
    await watched.presence.active(alice)
    await watched.presence.flush()
    assert len(watched.told()) == 3
    assert watched.db.writes == 1


async def test_idle_users_are_unavailable_and_absent_ones_offline(watched: Watched) -> None:
    world, alice = watched.world, watched.world.user("alice")
    await watched.presence.synced(alice, "online", "PHONE")
    watched.presence.sync_begins(alice, "PHONE")
    world.clock.advance(301)
    watched.presence.expire()
    assert (await watched.presence.of(alice)).state == "unavailable"

    # A client that goes on syncing as online does not make its user come back.
    await watched.presence.synced(alice, "online", "PHONE")
    assert (await watched.presence.of(alice)).state == "unavailable"
    await watched.presence.active(alice)
    assert (await watched.presence.of(alice)).state == "online"

    watched.presence.sync_ends(alice, "PHONE")
    world.clock.advance(29)
    watched.presence.expire()
    assert (await watched.presence.of(alice)).state == "online"
    world.clock.advance(2)
    watched.presence.expire()
    assert (await watched.presence.of(alice)).state == "offline"


async def test_two_devices_do_not_make_a_user_flicker(watched: Watched) -> None:
    alice = watched.world.user("alice")
    for device, state in (("LAPTOP", "online"), ("PHONE", "unavailable")) * 5:
        await watched.presence.synced(alice, state, device)  # type: ignore[arg-type]
        watched.presence.sync_begins(alice, device)
        assert (await watched.presence.of(alice)).state == "online"
    await watched.presence.set_state(alice, "offline", None, "LAPTOP")
    assert (await watched.presence.of(alice)).state == "unavailable"


async def test_another_servers_users_are_stored_together(watched: Watched) -> None:
    world, alice = watched.world, watched.world.user("alice")
    room = await world.public_room(alice)
    theirs = [f"@user{number}:far.example" for number in range(30)]
    for user_id in theirs:
        await joins(room, user_id)
    watched.db.writes = watched.db.reads = 0
    said: list[Mapping[str, Any]] = [
        {"user_id": each, "presence": "online", "last_active_ago": 5} for each in theirs
    ]

    await watched.presence.receive("far.example", {"push": [*said, {"user_id": alice, "presence": "online"}]})
    await watched.presence.flush()

    assert (watched.db.writes, watched.db.reads) == (1, 3)
    assert {each.user_id for each in watched.presence.there([*theirs, alice])} == set(theirs)
    assert watched.edus.sent == []


async def test_who_comes_into_a_room_is_seen_there(watched: Watched) -> None:
    world, alice, bob = watched.world, watched.world.user("alice"), watched.world.user("bob")
    room = await world.public_room(bob)
    await joins(room, "@carol:far.example")
    await watched.presence.synced(alice, "online", "PHONE")
    await watched.presence.flush()
    assert watched.told() == []

    await room.join(alice)
    await watched.presence.flush()
    assert watched.told() == [("far.example", alice)]


async def test_a_server_that_comes_into_a_room_is_told_who_is_there(watched: Watched) -> None:
    world, alice, bob = watched.world, watched.world.user("alice"), watched.world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    await watched.presence.synced(alice, "online", "PHONE")
    await watched.presence.flush()
    assert watched.told() == []

    for name in ("carol", "dave"):
        await joins(room, f"@{name}:far.example")
    await watched.presence.flush()
    await watched.presence.flush()
    assert watched.told() == [("far.example", alice)]


async def test_nothing_is_told_where_presence_is_off(sqlite_database: Database) -> None:
    world = await World.open(sqlite_database)
    watched = Watched(world)
    watched.presence.enabled = False
    alice = world.user("alice")
    await joins(await world.public_room(alice), "@carol:far.example")

    await watched.presence.synced(alice, "online", "PHONE")
    await watched.presence.set_state(alice, "online", "here", "PHONE")
    await watched.presence.receive(
        "far.example", {"push": [{"user_id": "@carol:far.example", "presence": "online"}]}
    )
    await watched.presence.flush()

    assert watched.db.writes == 0
    assert watched.edus.sent == []
    assert watched.presence.changed(0) == []
