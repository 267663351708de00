"""Lazy-loading room members."""

from __future__ import annotations

from typing import Any

from tests.sync.server import Client, SyncServer, keys
from tests.world import WorldRoom

LAZY: dict[str, Any] = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
REDUNDANT: dict[str, Any] = {
    "room": {
        "state": {"lazy_load_members": True, "include_redundant_members": True},
        "timeline": {"limit": 1},
    }
}


async def a_crowd(server: SyncServer) -> tuple[list[Client], WorldRoom]:
    crowd = [server.client(f"u{number}") for number in range(8)]
    room = await server.world.public_room(crowd[0].user_id, name="Crowd")
    for client in crowd[1:]:
        await room.join(client.user_id)
    return crowd, room


def members(section: dict[str, Any], name: str = "state") -> set[str]:
    return {state_key for type_, state_key in keys(section, name) if type_ == "m.room.member"}


async def test_only_the_senders_and_oneself_are_told_at_first(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    await room.send(crowd[3].user_id, "hi")
    section = (await crowd[5].sync(filter=LAZY))["rooms"]["join"][room.room_id]
    assert members(section) == {crowd[3].user_id, crowd[5].user_id}
    assert ("m.room.create", "") in keys(section)
    assert ("m.room.name", "") in keys(section)


async def test_a_member_is_told_once(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    reader = crowd[5]
    await reader.sync(filter=LAZY)
    told = []
    for sender in (crowd[3], crowd[3], crowd[4]):
        await room.send(sender.user_id, "hi")
        told.append(members((await reader.sync(filter=LAZY))["rooms"]["join"][room.room_id]))
    assert told == [{crowd[3].user_id}, set(), {crowd[4].user_id}]
    await room.send(crowd[3].user_id, "again")
    section = (await reader.sync(filter=REDUNDANT))["rooms"]["join"][room.room_id]
    assert members(section) == {crowd[3].user_id}


async def test_who_asks_again_for_the_same_is_told_again(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    reader = crowd[5]
    await reader.sync(filter=LAZY)
    await room.send(crowd[3].user_id, "hi")
    token = reader.token
    await reader.sync(filter=LAZY)
    reader.token = token
    section = (await reader.sync(filter=LAZY))["rooms"]["join"][room.room_id]
    assert members(section) == {crowd[3].user_id}


async def test_a_quiet_time_makes_nothing_be_told_again(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    reader = crowd[5]
    await reader.sync(filter=LAZY)
    await room.send(crowd[3].user_id, "hi")
    for _ in range(3):
        await reader.sync(filter=LAZY)
    await room.send(crowd[3].user_id, "again")
    section = (await reader.sync(filter=LAZY))["rooms"]["join"][room.room_id]
    assert members(section) == set()


async def test_memberships_that_changed_in_a_gap_are_told(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    reader = crowd[5]
    await reader.sync(filter=LAZY)
    await room.leave(crowd[2].user_id)
    await room.send(crowd[3].user_id, "1")
    await room.send(crowd[3].user_id, "2")
    section = (await reader.sync(filter=LAZY))["rooms"]["join"][room.room_id]
    assert section["timeline"]["limited"]
    assert members(section) == {crowd[2].user_id, crowd[3].user_id}
    assert section["summary"]["m.joined_member_count"] == 7


async def test_heroes_come_with_their_memberships(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.private_room(alice.user_id)
    await room.invite(alice.user_id, bob.user_id)
    await room.send(alice.user_id, "1")
    section = (await alice.sync(filter=LAZY))["rooms"]["join"][room.room_id]
    assert section["summary"] == {
        "m.heroes": [bob.user_id],
        "m.joined_member_count": 1,
        "m.invited_member_count": 1,
    }
    assert members(section) == {alice.user_id, bob.user_id}


async def test_state_after_has_the_members_too(server: SyncServer) -> None:
    crowd, room = await a_crowd(server)
    await room.send(crowd[3].user_id, "hi")
    section = (await crowd[5].sync(filter=LAZY, use_state_after=True))["rooms"]["join"][room.room_id]
    assert members(section, "state_after") == {crowd[3].user_id, crowd[5].user_id}
