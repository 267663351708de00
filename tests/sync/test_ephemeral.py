"""Typing, receipts, presence, account data and messages between devices, as ``/sync`` tells them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.rooms.receipts import FULLY_READ, READ, READ_PRIVATE
from homeserver.storage.database import Database
from tests.sync.server import Client, SyncServer
from tests.world import ELSEWHERE, WorldRoom


def ephemeral(response: dict[str, Any], room: WorldRoom, type_: str) -> list[dict[str, Any]]:
    section = response["rooms"].get("join", {}).get(room.room_id, {"ephemeral": {"events": []}})
    return [event["content"] for event in section["ephemeral"]["events"] if event["type"] == type_]


async def two_in_a_room(server: SyncServer) -> tuple[Client, Client, WorldRoom]:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await alice.sync()
    await bob.sync()
    return alice, bob, room


async def test_typing_wakes_others_and_ends_by_itself(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    waiting = bob.wait()
    await asyncio.sleep(0)
    await server.typing.set_typing(alice.user_id, room.room_id, True, 5000)
    assert ephemeral(await asyncio.wait_for(waiting, 5), room, "m.typing") == [{"user_ids": [alice.user_id]}]
    assert (await bob.sync())["rooms"] == {}
    server.world.clock.advance(6)
    server.typing.expire()
    assert ephemeral(await bob.sync(), room, "m.typing") == [{"user_ids": []}]


async def test_only_members_type(server: SyncServer) -> None:
    _, _, room = await two_in_a_room(server)
    with pytest.raises(MatrixError, match="not in this room"):
        await server.typing.set_typing(server.world.user("eve"), room.room_id, True)


async def test_a_receipt_is_told_once_and_never_goes_back(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    first, second = await room.send(alice.user_id, "1"), await room.send(alice.user_id, "2")
    await alice.sync()
    await server.receipts.read(bob.user_id, room.room_id, READ, second.id)
    (content,) = ephemeral(await alice.sync(), room, "m.receipt")
    assert content == {second.id: {READ: {bob.user_id: {"ts": server.world.clock.now_ms()}}}}
    await server.receipts.read(bob.user_id, room.room_id, READ, first.id)
    assert ephemeral(await alice.sync(), room, "m.receipt") == []


async def test_private_receipts_are_seen_by_their_owner_alone(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    event = await room.send(alice.user_id, "1")
    await alice.sync()
    await bob.sync()
    await server.receipts.read(bob.user_id, room.room_id, READ_PRIVATE, event.id)
    assert ephemeral(await alice.sync(), room, "m.receipt") == []
    (content,) = ephemeral(await bob.sync(), room, "m.receipt")
    assert READ_PRIVATE in content[event.id]
    alice.token = None
    assert ephemeral(await alice.sync(), room, "m.receipt") == []


async def test_receipts_for_threads_are_events_of_their_own(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    root = await room.send(alice.user_id, "root")
    relation = {"rel_type": "m.thread", "event_id": root.id}
    reply = await room.send_event(
        alice.user_id, "m.room.message", {"msgtype": "m.text", "body": "in it", "m.relates_to": relation}
    )
    await alice.sync()
    await server.receipts.read(bob.user_id, room.room_id, READ, root.id, "main")
    await server.receipts.read(bob.user_id, room.room_id, READ, reply.id, root.id)
    told = ephemeral(await alice.sync(), room, "m.receipt")
    assert [
        content[event_id][READ][bob.user_id]["thread_id"] for content in told for event_id in content
    ] == [
        "main",
        root.id,
    ]
    with pytest.raises(MatrixError, match="not in that thread"):
        await server.receipts.read(bob.user_id, room.room_id, READ, reply.id, "main")


async def test_the_fully_read_marker_is_account_data(server: SyncServer) -> None:
    alice, _, room = await two_in_a_room(server)
    first, second = await room.send(alice.user_id, "1"), await room.send(alice.user_id, "2")
    await alice.sync()
    await server.receipts.read(alice.user_id, room.room_id, FULLY_READ, second.id)
    await server.receipts.read(alice.user_id, room.room_id, FULLY_READ, first.id)
    section = (await alice.sync())["rooms"]["join"][room.room_id]
    assert section["account_data"]["events"] == [{"type": FULLY_READ, "content": {"event_id": second.id}}]


async def join_from_elsewhere(server: SyncServer, room: WorldRoom, user_id: str) -> None:
    """A member of another server, as far as sending goes: only this server's copy of the room knows."""
    await room.set_state(user_id, "m.room.member", {"membership": "join"}, state_key=user_id)


async def test_other_servers_are_told_and_believed(server: SyncServer) -> None:
    alice, _, room = await two_in_a_room(server)
    carol = f"@carol:{ELSEWHERE}"
    await join_from_elsewhere(server, room, carol)
    event = await room.send(alice.user_id, "1")
    await server.receipts.read(alice.user_id, room.room_id, READ, event.id)
    await server.typing.set_typing(alice.user_id, room.room_id, True)
    now = server.world.clock.now_ms()
    said = {"event_ids": [event.id], "data": {"ts": now}}
    assert server.edus.sent == [
        (ELSEWHERE, "m.receipt", {room.room_id: {READ: {alice.user_id: said}}}),
        (ELSEWHERE, "m.typing", {"room_id": room.room_id, "user_id": alice.user_id, "typing": True}),
    ]
    await alice.sync()
    await server.receipts.receive(ELSEWHERE, {room.room_id: {READ: {carol: said}}})
    await server.typing.receive(ELSEWHERE, {"room_id": room.room_id, "user_id": carol, "typing": True})
    response = await alice.sync()
    assert ephemeral(response, room, "m.receipt") == [{event.id: {READ: {carol: {"ts": now}}}}]
    assert ephemeral(response, room, "m.typing") == [{"user_ids": [alice.user_id, carol]}]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"!nowhere:x": {READ: {}}},
        {"room": 5},
        {"room": {READ: {"@alice:here.example": {"event_ids": ["$x"], "data": {"ts": 1}}}}},
        {"room": {READ: {f"@nobody:{ELSEWHERE}": {"event_ids": ["$x"], "data": {"ts": 1}}}}},
        {"room": {READ: {f"@carol:{ELSEWHERE}": {"event_ids": [5], "data": {"ts": 1}}}}},
        {"room": {READ: {f"@carol:{ELSEWHERE}": {"event_ids": ["$x"], "data": {"ts": "1"}}}}},
    ],
)
async def test_receipts_that_are_not_the_origins_leave_no_trace(
    server: SyncServer, content: dict[str, Any]
) -> None:
    alice, _, room = await two_in_a_room(server)
    await join_from_elsewhere(server, room, f"@carol:{ELSEWHERE}")
    await alice.sync()
    await server.receipts.receive(
        ELSEWHERE, {room.room_id if key == "room" else key: value for key, value in content.items()}
    )
    assert (await alice.sync())["rooms"] == {}


async def test_messages_to_a_device_are_given_until_they_are_acknowledged(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob", device="LAPTOP")
    await server.add_device(bob.user_id, "LAPTOP")
    await server.add_device(bob.user_id, "TABLET")
    await bob.sync()
    before = bob.token
    waiting = bob.wait()
    await asyncio.sleep(0)
    messages = {bob.user_id: {"*": {"to": "all"}, "TABLET": {"to": "tablet"}}}
    await server.to_device.send(alice.user_id, alice.device, "m.test", "txn", messages)
    await server.to_device.send(alice.user_id, alice.device, "m.test", "txn", messages)
    expected = [{"type": "m.test", "sender": alice.user_id, "content": {"to": "all"}}]
    assert (await asyncio.wait_for(waiting, 5))["to_device"]["events"] == expected
    bob.token = before
    assert (await bob.sync())["to_device"]["events"] == expected
    assert (await bob.sync())["to_device"]["events"] == []
    bob.token = before
    assert (await bob.sync())["to_device"]["events"] == []


async def test_many_messages_come_in_several_responses(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob", device="LAPTOP")
    await server.add_device(bob.user_id, "LAPTOP")
    for number in range(230):
        await server.to_device.send(
            alice.user_id, alice.device, "m.test", str(number), {bob.user_id: {"LAPTOP": {"n": number}}}
        )
    got = []
    for _ in range(4):
        got.append([event["content"]["n"] for event in (await bob.sync())["to_device"]["events"]])
    assert [len(part) for part in got] == [100, 100, 30, 0]
    assert [number for part in got for number in part] == list(range(230))


async def test_messages_for_other_servers_are_handed_on_and_theirs_come_once(server: SyncServer) -> None:
    alice = server.client("alice")
    await server.add_device(alice.user_id, alice.device)
    carol = f"@carol:{ELSEWHERE}"
    await server.to_device.send(alice.user_id, "PHONE", "m.test", "t", {carol: {"D": {"x": 1}}})
    ((destination, edu_type, content),) = server.edus.sent
    assert (destination, edu_type) == (ELSEWHERE, "m.direct_to_device")
    assert content["messages"] == {carol: {"D": {"x": 1}}}
    await alice.sync()
    edu = {"sender": carol, "type": "m.back", "message_id": "1", "messages": {alice.user_id: {"*": {"y": 2}}}}
    await server.to_device.receive(ELSEWHERE, edu)
    await server.to_device.receive(ELSEWHERE, edu)
    await server.to_device.receive("evil.example", {**edu, "message_id": "2"})
    told = (await alice.sync())["to_device"]["events"]
    assert told == [{"type": "m.back", "sender": carol, "content": {"y": 2}}]


async def test_account_data_is_told_globally_and_by_room(server: SyncServer) -> None:
    alice, _, room = await two_in_a_room(server)
    await server.account_data.set_content(alice.user_id, "org.example", {"a": 1})
    await server.account_data.set_content(alice.user_id, "org.example.room", {"b": 2}, room.room_id)
    response = await alice.sync()
    assert response["account_data"]["events"] == [{"type": "org.example", "content": {"a": 1}}]
    section = response["rooms"]["join"][room.room_id]
    assert section["account_data"]["events"] == [{"type": "org.example.room", "content": {"b": 2}}]
    assert (await alice.sync())["account_data"]["events"] == []


async def test_a_first_sync_tells_the_push_rules(server: SyncServer) -> None:
    alice = server.client("alice")
    events = {event["type"]: event["content"] for event in (await alice.sync())["account_data"]["events"]}
    assert events["m.push_rules"]["global"]["override"][0]["rule_id"] == ".m.rule.master"


async def test_an_ignored_user_is_not_heard_but_their_state_is(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    ignored: dict[str, Any] = {"ignored_users": {bob.user_id: {}}}
    await server.account_data.set_content(alice.user_id, "m.ignored_user_list", ignored)
    await alice.sync()
    await room.send(bob.user_id, "can you hear me?")
    await room.leave(bob.user_id)
    section = (await alice.sync())["rooms"]["join"][room.room_id]
    assert [event["type"] for event in section["timeline"]["events"]] == ["m.room.member"]


async def test_presence_is_told_to_those_who_share_a_room(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database, presence=True)
    alice, bob, stranger = server.client("alice"), server.client("bob"), server.client("eve")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await alice.sync()
    await stranger.sync(set_presence="offline")
    await bob.sync(set_presence="offline")
    waiting = alice.wait()
    await asyncio.sleep(0)
    await server.presence.set_state(bob.user_id, "online", "here")
    await server.presence.flush()
    (event,) = (await asyncio.wait_for(waiting, 5))["presence"]["events"]
    assert event["sender"] == bob.user_id
    assert event["content"] == {
        "presence": "online",
        "last_active_ago": 0,
        "currently_active": True,
        "status_msg": "here",
    }
    assert (await stranger.sync(set_presence="offline"))["presence"]["events"] == []
    server.world.clock.advance(60)
    server.presence.expire()
    told = {event["sender"]: event["content"] for event in (await alice.sync())["presence"]["events"]}
    assert told[bob.user_id]["presence"] == "offline"
