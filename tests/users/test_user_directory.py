"""Who finds whom, on both engines."""

from __future__ import annotations

from homeserver.config.people import UserDirectory as Settings
from homeserver.contacts import Contacts, ContactSettings, wire_contacts
from homeserver.storage import user_directory
from homeserver.storage.database import Database
from tests.sync.server import SyncServer
from tests.world import ELSEWHERE, SERVER, WorldRoom


class Town:
    """A server whose people search for each other."""

    def __init__(self, server: SyncServer, settings: Settings) -> None:
        self.server = server
        self.world = server.world
        self.people = server.people
        self.contacts: Contacts = wire_contacts(
            server.world.core,
            server.people,
            server.world.actions,
            server.reading,
            ContactSettings(user_directory=settings),
        )
        self.reader = self.contacts.directory_reader

    @classmethod
    async def open(cls, db: Database, *, search_all_users: bool = False) -> Town:
        return cls(await SyncServer.open(db), Settings(search_all_users=search_all_users))

    async def person(self, name: str, displayname: str | None = None) -> str:
        user_id = await self.people.accounts.create_account(name, None)
        if displayname is not None:
            await self.people.profiles.set_field(user_id, "displayname", displayname)
        return user_id

    async def find(self, searcher: str, term: str, limit: int = 10) -> list[str]:
        return [entry.user_id for entry in await self.found(searcher, term, limit)]

    async def found(self, searcher: str, term: str, limit: int = 10) -> list[user_directory.Entry]:
        directory = self.contacts.directory
        assert directory is not None
        return (await directory.search(searcher, term, limit))[0]


async def joins_from_elsewhere(room: WorldRoom, name: str, displayname: str) -> str:
    user_id = f"@{name}:{ELSEWHERE}"
    content = {"membership": "join", "displayname": displayname, "avatar_url": "mxc://x/y"}
    await room.set_state(user_id, "m.room.member", content, state_key=user_id)
    return user_id


async def test_people_find_those_they_share_a_room_with(database: Database) -> None:
    town = await Town.open(database)
    alice, bob, eve = [await town.person(name, name.title()) for name in ("alice", "bob", "eve")]
    room = await town.world.private_room(alice)
    await room.invite(alice, bob)
    assert await town.find(alice, "bob") == []  # who is invited is not there yet
    await room.join(bob)

    assert await town.find(alice, "BO") == [bob]
    assert await town.find(bob, "alice") == [alice]
    assert await town.find(bob, "bob") == []  # nobody finds themselves
    assert await town.find(eve, "bob") == []
    assert await town.find(alice, "eve") == []

    await room.leave(bob)
    assert await town.find(alice, "bob") == []


async def test_people_in_public_rooms_are_found_by_all(database: Database) -> None:
    town = await Town.open(database)
    alice, eve = await town.person("alice", "Alice Cooper"), await town.person("eve")
    room = await town.world.private_room(alice)
    assert await town.find(eve, "alice") == []

    await room.set_state(alice, "m.room.join_rules", {"join_rule": "public"})
    assert await town.find(eve, "cooper ali") == [alice]

    await room.set_state(alice, "m.room.join_rules", {"join_rule": "invite"})
    assert await town.find(eve, "cooper") == []

    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert await town.find(eve, "cooper") == [alice]

    await room.leave(alice)
    assert await town.find(eve, "cooper") == []


async def test_a_name_for_one_room_is_not_told_elsewhere(database: Database) -> None:
    town = await Town.open(database)
    alice, bob, eve = [await town.person(name) for name in ("alice", "bob", "eve")]
    await town.people.profiles.set_field(alice, "displayname", "Alice Cooper")
    await town.world.public_room(alice)
    secret = await town.world.private_room(bob)
    await secret.invite(bob, alice)
    named = {"membership": "join", "displayname": "Freddy"}
    await secret.set_state(alice, "m.room.member", named, state_key=alice)

    for searcher in (bob, eve):
        assert await town.find(searcher, "freddy") == []
        assert [entry.display_name for entry in await town.found(searcher, "alice")] == ["Alice Cooper"]


async def test_names_that_other_servers_users_have_in_public_come_first(database: Database) -> None:
    town = await Town.open(database)
    alice = await town.person("alice")
    public, secret = await town.world.public_room(alice), await town.world.public_room(alice)
    carol = await joins_from_elsewhere(secret, "carol", "Secret Carol")
    await secret.set_state(alice, "m.room.join_rules", {"join_rule": "invite"})
    assert [entry.display_name for entry in await town.found(alice, "carol")] == ["Secret Carol"]

    await joins_from_elsewhere(public, "carol", "Carol")
    assert [entry.display_name for entry in await town.found(alice, "carol")] == ["Carol"]
    await joins_from_elsewhere(secret, "carol", "Hidden Carol")
    assert await town.find(alice, "hidden") == []

    left = {"membership": "leave"}
    for room in (public, secret):
        await room.set_state(carol, "m.room.member", left, state_key=carol)
    assert await town.find(alice, "carol") == []
    assert await user_directory.entries(database.scan, [carol]) == {}


async def test_nobody_finds_whom_they_ignore_or_who_is_gone(database: Database) -> None:
    town = await Town.open(database)
    alice, bob, carol = [await town.person(name) for name in ("alice", "bob", "carol")]
    room = await town.world.public_room(alice)
    await room.join(bob)
    await room.join(carol)
    assert await town.find(alice, "bob") == [bob]

    ignored = {"ignored_users": {bob: {}}}
    await town.people.account_data.set_content(alice, "m.ignored_user_list", ignored)
    assert await town.find(alice, "bob") == []
    assert await town.find(carol, "bob") == [bob]

    await town.people.accounts.deactivate(bob)
    assert await town.find(carol, "bob") == []
    assert await user_directory.entries(database.scan, [bob]) == {}


async def test_all_may_be_searched(database: Database) -> None:
    town = await Town.open(database, search_all_users=True)
    alice, bob = await town.person("alice"), await town.person("bob", "Robert")

    assert await town.find(alice, "robert") == [bob]
    await town.people.profiles.remove_field(bob, "displayname")
    assert await town.find(alice, "robert") == []
    assert await town.find(alice, f"@bob:{SERVER}") == [bob]
    assert await town.find(alice, "@bob:other") == []


async def test_more_than_wanted_is_cut_and_said_so(database: Database) -> None:
    town = await Town.open(database, search_all_users=True)
    alice = await town.person("alice")
    bobs = [await town.person(f"bob{number}") for number in range(4)]
    directory = town.contacts.directory
    assert directory is not None

    found, limited = await directory.search(alice, "bob", 3)
    assert ([entry.user_id for entry in found], limited) == (bobs[:3], True)
    found, limited = await directory.search(alice, "bob", 4)
    assert ([entry.user_id for entry in found], limited) == (bobs, False)


async def test_what_happened_while_nobody_looked_is_read_after_a_restart(database: Database) -> None:
    unwatched = await SyncServer.open(database)
    alice = await unwatched.people.accounts.create_account("alice", None)
    room = await unwatched.world.public_room(alice)
    carol = await joins_from_elsewhere(room, "carol", "Carol")

    town = await Town.open(database)
    eve = await town.person("eve")
    assert await town.find(eve, "carol") == []
    await town.reader.catch_up()
    assert await town.find(eve, "carol") == [carol]
    assert await town.find(eve, "alice") == [alice]
    assert await user_directory.rooms_behind(database.scan, 0, 10) == []


async def test_a_room_is_read_on_from_where_it_was_read_up_to(database: Database) -> None:
    town = await Town.open(database)
    alice = await town.person("alice")
    room = await town.world.public_room(alice)
    for number in range(5):
        await joins_from_elsewhere(room, f"guest{number}", "Guest")
    await town.reader.work_off()
    nid = (await room.live()).nid
    before = await user_directory.progress(database.scan, nid)
    assert before is not None

    await joins_from_elsewhere(room, "late", "Late")
    await room.send(alice, "a message changes nothing")
    reached = user_directory.Progress(nid, before.epoch, (await room.live()).state_ver, True)
    assert await user_directory.members_changed(database.scan, reached, before.state_ver, 10) == [
        f"@late:{ELSEWHERE}"
    ]
    await town.reader.work_off()
    assert await user_directory.progress(database.scan, nid) == reached
