"""What somebody keeps for a room is kept for the one that replaces it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.contacts import wire_contacts
from homeserver.storage.database import Database
from homeserver.users.carry_over import with_replacement
from homeserver.users.push_rules import carry_rules_over, whole_ruleset
from tests.sync.server import SyncServer
from tests.world import WorldRoom

#: What the server calls it when it does so in the background.
CARRYING = "settings for a replaced room"


@pytest.fixture
async def server(sqlite_database: Database) -> SyncServer:
    server = await SyncServer.open(sqlite_database)
    wire_contacts(server.world.core, server.people, server.world.actions, server.reading)
    return server


async def keep_settings(server: SyncServer, user_id: str, room: WorldRoom) -> None:
    """A favourite room, a direct chat, that is muted."""
    await server.account_data.set_tag(user_id, room.room_id, "m.favourite", {"order": 0.5})
    await server.account_data.set_content(user_id, "m.direct", {"@bob:x": [room.room_id], "@eve:x": ["!o:x"]})
    mute = {"rule_id": room.room_id, "actions": ["dont_notify"]}
    await server.people.push_rules.put(user_id, "room", mute)


async def kept(server: SyncServer, user_id: str, room_id: str) -> tuple[Any, Any, list[str]]:
    """Tags, the direct chat's rooms, and the rooms that have rules."""
    direct = await server.account_data.content(user_id, "m.direct") or {}
    rules = (await server.people.push_rules.ruleset(user_id))["room"]
    tags = await server.account_data.tags(user_id, room_id)
    return tags, direct.get("@bob:x"), [rule["rule_id"] for rule in rules]


async def test_settings_follow_who_upgrades_a_room_and_who_joins_after(server: SyncServer) -> None:
    world = server.world
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, version="10")
    await room.join(bob)
    for user_id in (alice, bob):
        await keep_settings(server, user_id, room)
    new_id = await world.upgrade.upgrade(alice, room.room_id, "12")

    everything = ({"m.favourite": {"order": 0.5}}, [room.room_id, new_id], [room.room_id, new_id])
    assert await kept(server, alice, new_id) == everything
    assert (await kept(server, bob, new_id))[0] == {}
    await world.membership.join(bob, new_id)
    assert await kept(server, bob, new_id) == everything


async def test_settings_follow_those_who_are_in_the_new_room_already(server: SyncServer) -> None:
    """As clients upgrade a room by themselves: the new room is there before the tombstone."""
    world = server.world
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    for user_id in (alice, bob):
        await keep_settings(server, user_id, room)
    new = await world.public_room(alice, creation_content={"predecessor": {"room_id": room.room_id}})
    await new.join(bob)
    assert (await kept(server, bob, new.room_id))[0] == {}

    tombstone = {"body": "Come along", "replacement_room": new.room_id}
    await room.set_state(alice, "m.room.tombstone", tombstone)

    everything = ({"m.favourite": {"order": 0.5}}, [room.room_id, new.room_id], [room.room_id, new.room_id])
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == CARRYING))
    assert await kept(server, alice, new.room_id) == everything
    assert await kept(server, bob, new.room_id) == everything


async def test_what_is_removed_in_the_new_room_does_not_come_back(server: SyncServer) -> None:
    world = server.world
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, version="10")
    await room.join(bob)
    await keep_settings(server, bob, room)
    new_id = await world.upgrade.upgrade(alice, room.room_id, "12")
    await world.membership.join(bob, new_id)
    await server.account_data.remove_tag(bob, new_id, "m.favourite")

    await world.membership.leave(bob, new_id)
    await world.membership.join(bob, new_id)
    assert (await kept(server, bob, new_id))[0] == {}


async def test_a_room_that_only_claims_to_replace_another_gets_nothing(server: SyncServer) -> None:
    world = server.world
    alice, eve = world.user("alice"), world.user("eve")
    room = await world.public_room(alice)
    await keep_settings(server, alice, room)
    trap = await world.public_room(eve, creation_content={"predecessor": {"room_id": room.room_id}})

    await trap.join(alice)
    assert await kept(server, alice, trap.room_id) == ({}, [room.room_id], [room.room_id])


@pytest.mark.parametrize(
    ("direct", "changed"),
    [
        ({}, None),
        ({"@a:x": ["!new:x"]}, None),
        ({"@a:x": ["!old:x", "!new:x"]}, None),
        ({"@a:x": "!old:x"}, None),
        ({"@a:x": ["!old:x"], "@b:x": 1}, {"@a:x": ["!old:x", "!new:x"], "@b:x": 1}),
    ],
)
def test_direct_chats(direct: dict[str, Any], changed: dict[str, Any] | None) -> None:
    assert with_replacement(direct, "!old:x", "!new:x") == changed


def test_rules_with_conditions_on_the_room_are_carried_over_too() -> None:
    about = {"kind": "event_match", "key": "room_id", "pattern": "!old:x"}
    said = {"kind": "event_match", "key": "content.body", "pattern": "tea"}
    override = [
        {"rule_id": "!old:x", "actions": [], "conditions": [about], "enabled": False, "default": False},
        {"rule_id": "tea", "actions": ["notify"], "conditions": [about, said], "default": False},
        {"rule_id": "else", "actions": ["notify"], "conditions": [said], "default": False},
    ]
    ruleset = whole_ruleset("@a:x", {"global": {"override": override}})

    assert carry_rules_over(ruleset, "!old:x", "!new:x")
    own = {rule["rule_id"]: rule for rule in ruleset["override"] if not rule["default"]}
    assert list(own) == ["!old:x", "!new:x", "tea", "tea.!new:x", "else"]
    assert own["!new:x"] == {
        **own["!old:x"],
        "rule_id": "!new:x",
        "conditions": [{**about, "pattern": "!new:x"}],
    }
    assert own["tea.!new:x"]["conditions"] == [{**about, "pattern": "!new:x"}, said]
    assert not carry_rules_over(ruleset, "!old:x", "!new:x")
