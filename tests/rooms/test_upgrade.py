"""Upgrading rooms."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.power_levels import CREATOR_LEVEL
from homeserver.protocol.room_versions import ROOM_VERSIONS, V9
from homeserver.rooms.new_room import InitialState, NewRoom
from homeserver.rooms.upgrade import silent_levels
from homeserver.storage.database import Database
from tests.world import World, WorldRoom


@pytest.fixture
async def world(sqlite_database: Database) -> World:
    return await World.open(sqlite_database)


async def upgraded(world: World, user_id: str, room: WorldRoom, version: str, **fields: Any) -> WorldRoom:
    return WorldRoom(world, await world.upgrade.upgrade(user_id, room.room_id, version, **fields))


async def errcode(work: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refusal:
        await work
    return refusal.value.status, refusal.value.errcode


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
async def test_the_old_room_and_the_new_one_point_at_each_other(world: World, version: str) -> None:
    alice = world.user("alice", displayname="Alice")
    old = await world.public_room(alice, version=version, creation_content={"type": "m.space"})
    new = await upgraded(world, alice, old, "12")
    create = await new.content("m.room.create") or {}
    assert create["predecessor"] == {"room_id": old.room_id}
    assert (create["type"], create["room_version"]) == ("m.space", "12")
    assert (await old.content("m.room.tombstone") or {})["replacement_room"] == new.room_id
    assert await new.content("m.room.member", alice) == {"membership": "join", "displayname": "Alice"}


async def test_before_v12_the_last_event_of_the_old_room_is_named(world: World) -> None:
    alice = world.user("alice")
    old = await world.public_room(alice, version="10")
    last = await old.send(alice, "the last words")
    create = await (await upgraded(world, alice, old, "11")).content("m.room.create") or {}
    assert create["predecessor"] == {"room_id": old.room_id, "event_id": last.id}


async def test_transferable_state_is_carried_over_and_people_are_not(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    old = await world.public_room(
        alice,
        version="11",
        name="Pub",
        topic="Beer",
        initial_state=[
            InitialState("m.room.server_acl", {"allow": ["*"]}),
            InitialState("m.room.guest_access", {"guest_access": "can_join"}),
            InitialState("org.example.custom", {"by": "alice"}),
        ],
    )
    await old.join(bob)
    before = await old.state()
    after = await (await upgraded(world, alice, old, "11")).state()
    for type_ in ("name", "topic", "join_rules", "history_visibility", "guest_access", "server_acl"):
        assert after[f"m.room.{type_}", ""] == before[f"m.room.{type_}", ""]
    assert after["m.room.power_levels", ""] == before["m.room.power_levels", ""]
    assert ("org.example.custom", "") not in after
    assert ("m.room.member", bob) not in after


async def test_what_is_in_a_space_stays_in_it(world: World) -> None:
    alice = world.user("alice")
    space = await world.public_room(alice, creation_content={"type": "m.space"})
    await space.set_state(alice, "m.space.child", {"via": ["a.example"]}, "!child:a.example")
    await space.set_state(alice, "m.space.child", {}, "!removed:a.example")
    state = await (await upgraded(world, alice, space, "12")).state()
    assert [key[1] for key in state if key[0] == "m.space.child"] == ["!child:a.example"]


async def test_the_old_room_falls_silent(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    old = await world.public_room(alice, version="10")
    await old.join(bob)
    await upgraded(world, alice, old, "12")
    with pytest.raises(NotAllowed):
        await old.send(bob, "anybody there?")
    with pytest.raises(NotAllowed):
        await old.invite(bob, world.user("carol"))
    await old.send(alice, "only me")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (50, 50)),
        ({"users_default": 50}, (51, 51)),
        ({"events_default": 70, "invite": "80"}, (70, 80)),
    ],
)
def test_silent_levels(given: dict[str, Any], expected: tuple[int, int]) -> None:
    levels = silent_levels(given, V9)
    assert (levels["events_default"], levels["invite"]) == expected


async def test_aliases_and_publication_move(world: World) -> None:
    alice = world.user("alice")
    old = await world.room(alice, NewRoom(visibility="public", room_alias_name="pub"))
    world.remote.aliases["#pub:elsewhere.example"] = (old.room_id, ["elsewhere.example"])
    aliases = {"alias": "#pub:here.example", "alt_aliases": ["#pub:elsewhere.example"]}
    await old.set_state(alice, "m.room.canonical_alias", aliases)
    new = await upgraded(world, alice, old, "12")
    assert (await world.directory.resolve("#pub:here.example"))[0] == new.room_id
    assert await world.directory.is_published(new.room_id)
    assert not await world.directory.is_published(old.room_id)
    assert await new.content("m.room.canonical_alias") == {"alias": "#pub:here.example", "alt_aliases": []}
    assert await old.content("m.room.canonical_alias") == {"alt_aliases": ["#pub:elsewhere.example"]}


async def test_creators_are_not_listed_in_the_levels_of_v12(world: World) -> None:
    alice, bob, carol = (world.user(name) for name in ("alice", "bob", "carol"))
    levels = {
        "users": {alice: 100, bob: 100, carol: 50},
        "state_default": 100,
        "events": {"m.room.tombstone": 100},
    }
    old = await world.public_room(alice, version="11", power_level_content_override=levels)
    new = await upgraded(world, alice, old, "12", additional_creators=[bob])
    content = await new.content("m.room.power_levels") or {}
    assert content["users"] == {carol: 50}
    assert content["events"]["m.room.tombstone"] > content["state_default"]
    power = (await new.live()).power_levels
    assert power.of_user(alice) == power.of_user(bob) == CREATOR_LEVEL


async def test_additional_creators_are_not_carried_over(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    old = await world.room(alice, NewRoom(preset="trusted_private_chat", invite=[bob]))
    new = await upgraded(world, alice, old, "12")
    assert "additional_creators" not in (await new.content("m.room.create") or {})
    assert (await new.live()).power_levels.of_user(bob) == 0


async def test_creators_stay_above_all_others_where_there_are_none(world: World) -> None:
    alice, bob, carol = (world.user(name) for name in ("alice", "bob", "carol"))
    highest = 2**53 - 1
    old = await world.public_room(
        alice, version="12", power_level_content_override={"users": {bob: highest, carol: 30}}
    )
    new = await upgraded(world, alice, old, "11", additional_creators=["@bob:here.example"])
    users = (await new.content("m.room.power_levels") or {})["users"]
    assert users == {alice: highest, bob: highest - 1, carol: 30}
    await new.set_state(alice, "m.room.name", {"name": "still mine"})


async def test_levels_become_valid_in_the_new_version(world: World) -> None:
    alice = world.user("alice")
    levels = {"users": {alice: "100"}, "ban": "60", "events": {"m.room.name": " 40 "}}
    old = await world.public_room(alice, version="9", power_level_content_override=levels)
    content = await (await upgraded(world, alice, old, "10")).content("m.room.power_levels") or {}
    assert content["users"] == {alice: 100}
    assert (content["ban"], content["events"]["m.room.name"]) == (60, 40)


async def test_who_may_not_send_the_tombstone_cannot_upgrade(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    old = await world.public_room(alice, version="11")
    await old.join(bob)
    rooms = await world.db.read.fetch_value("SELECT COUNT(*) FROM rooms")
    assert await errcode(upgraded(world, bob, old, "12")) == (403, "M_FORBIDDEN")
    assert await errcode(upgraded(world, world.user("eve"), old, "12")) == (403, "M_FORBIDDEN")
    assert await errcode(upgraded(world, alice, old, "13")) == (400, "M_UNSUPPORTED_ROOM_VERSION")
    assert await world.db.read.fetch_value("SELECT COUNT(*) FROM rooms") == rooms
    assert await old.content("m.room.tombstone") is None


async def test_a_moderator_who_may_upgrade_is_not_hindered_by_the_levels_carried_over(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    levels = {
        "users": {alice: 100, bob: 50},
        "events": {"m.room.tombstone": 50, "m.room.history_visibility": 100},
    }
    old = await world.public_room(alice, version="11", power_level_content_override=levels)
    await old.join(bob)
    new = await upgraded(world, bob, old, "11")
    assert (await new.content("m.room.power_levels") or {})["users"] == {alice: 100, bob: 50}
    assert await new.content("m.room.history_visibility") == {"history_visibility": "shared"}
    with pytest.raises(NotAllowed):
        await new.set_state(bob, "m.room.history_visibility", {"history_visibility": "joined"})
