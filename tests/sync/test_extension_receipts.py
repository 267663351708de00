"""Receipts and typing over sliding sync: of the rooms in view, and what is whose."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.rooms.receipts import READ, READ_PRIVATE
from homeserver.storage.database import Database
from tests.sync.extension_client import ENABLED, ExtensionClient
from tests.sync.server import Client, SyncServer
from tests.world import WorldRoom


def read_by(part: dict[str, Any], room: WorldRoom) -> set[tuple[str, str, str]]:
    """Who has read up to which event, and by what kind of receipt."""
    event = part["rooms"].get(room.room_id, {"content": {}})
    return {
        (user_id, event_id, type_)
        for event_id, by_type in event["content"].items()
        for type_, users in by_type.items()
        for user_id in users
    }


class Readers:
    """Alice and Bob in a room, and Alice's phone."""

    def __init__(self, server: SyncServer, room: WorldRoom, alice: Client, bob: Client) -> None:
        self.server, self.room = server, room
        self.alice, self.bob = alice.user_id, bob.user_id
        self.phone = ExtensionClient.of(server, self.alice, "receipts")

    async def read(self, user_id: str, event_id: str, type_: str = READ, thread: str | None = None) -> None:
        await self.server.receipts.read(user_id, self.room.room_id, type_, event_id, thread)

    async def told(self, **body: Any) -> set[tuple[str, str, str]]:
        extensions = await self.phone.told(**body)
        return read_by(extensions["receipts"], self.room) if extensions else set()


@pytest.fixture
async def readers(sqlite_database: Database) -> Readers:
    server = await SyncServer.open(sqlite_database)
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    return Readers(server, room, alice, bob)


async def test_first_come_ones_own_and_those_at_the_events_that_are_told(readers: Readers) -> None:
    old = await readers.room.send(readers.bob, "old")
    await readers.read(readers.alice, old.id)
    await readers.read(readers.alice, old.id, READ_PRIVATE)
    await readers.read(readers.bob, old.id)
    carol = readers.server.world.user("carol")
    await readers.room.join(carol)
    for number in range(5):
        newest = await readers.room.send(readers.alice, str(number))
    await readers.read(carol, newest.id)
    assert await readers.told() == {
        (readers.alice, old.id, READ),
        (readers.alice, old.id, READ_PRIVATE),
        (carol, newest.id, READ),
    }
    assert await readers.told() == set()


async def test_then_come_changes_whatever_events_they_are_at(readers: Readers) -> None:
    first = await readers.room.send(readers.alice, "1")
    await readers.phone.told()
    await readers.read(readers.bob, first.id)
    assert await readers.told() == {(readers.bob, first.id, READ)}
    second = await readers.room.send(readers.alice, "2")
    await readers.read(readers.bob, second.id)
    assert await readers.told() == {(readers.bob, second.id, READ)}


async def test_private_receipts_are_their_owners_alone(readers: Readers) -> None:
    event = await readers.room.send(readers.alice, "1")
    await readers.phone.told()
    await readers.read(readers.bob, event.id, READ_PRIVATE)
    assert await readers.told() == set()
    await readers.read(readers.alice, event.id, READ_PRIVATE)
    assert await readers.told() == {(readers.alice, event.id, READ_PRIVATE)}
    readers.phone = ExtensionClient.of(readers.server, readers.alice, "receipts")
    assert await readers.told() == {(readers.alice, event.id, READ_PRIVATE)}


async def test_people_who_are_ignored_read_nothing(readers: Readers) -> None:
    ignored = {"ignored_users": {readers.bob: {}}}
    await readers.server.account_data.set_content(readers.alice, "m.ignored_user_list", ignored)
    event = await readers.room.send(readers.alice, "1")
    await readers.read(readers.bob, event.id)
    assert await readers.told() == set()


async def test_a_receipt_says_which_thread_it_is_for(readers: Readers) -> None:
    root = await readers.room.send(readers.bob, "root")
    relation = {"rel_type": "m.thread", "event_id": root.id}
    content = {"msgtype": "m.text", "body": "in it", "m.relates_to": relation}
    said = await readers.room.send_event(readers.bob, "m.room.message", content)
    await readers.phone.told()
    await readers.read(readers.alice, said.id, thread=root.id)
    part = (await readers.phone.told())["receipts"]["rooms"][readers.room.room_id]
    assert part["type"] == "m.receipt"
    assert part["content"][said.id][READ][readers.alice]["thread_id"] == root.id


async def test_of_several_at_one_event_the_one_for_no_thread_is_told(readers: Readers) -> None:
    event = await readers.room.send(readers.bob, "1")
    await readers.read(readers.alice, event.id)
    await readers.read(readers.alice, event.id, thread="main")
    part = (await readers.phone.told())["receipts"]["rooms"][readers.room.room_id]
    assert "thread_id" not in part["content"][event.id][READ][readers.alice]


async def test_what_is_read_out_of_view_is_told_when_the_room_is_back(readers: Readers) -> None:
    event = await readers.room.send(readers.alice, "1")
    await readers.server.world.public_room(readers.alice)
    await readers.told(last=1)
    await readers.read(readers.bob, event.id)
    assert await readers.told(last=0) == set()
    assert await readers.told(last=0) == set()
    assert await readers.told(last=1) == {(readers.bob, event.id, READ)}


async def test_nobody_is_told_what_is_read_after_they_left(readers: Readers) -> None:
    phone = ExtensionClient.of(readers.server, readers.bob, "receipts")
    await phone.told()
    await readers.room.leave(readers.bob)
    event = await readers.room.send(readers.alice, "gone?")
    await readers.read(readers.alice, event.id)
    assert await phone.told() == {}
    await readers.room.join(readers.bob)
    assert read_by((await phone.told())["receipts"], readers.room) == {(readers.alice, event.id, READ)}


async def test_a_receipt_ends_the_waiting(readers: Readers) -> None:
    event = await readers.room.send(readers.alice, "1")
    await readers.phone.told()
    waiting = asyncio.get_running_loop().create_task(readers.told(timeout=60))
    await asyncio.sleep(0)
    await readers.read(readers.bob, event.id)
    async with asyncio.timeout(30):
        assert await waiting == {(readers.bob, event.id, READ)}


def typing(extensions: dict[str, Any], name: str = "typing") -> dict[str, list[str]]:
    rooms = extensions.get(name, {"rooms": {}})["rooms"]
    assert all(event["type"] == "m.typing" for event in rooms.values())
    return {room_id: event["content"]["user_ids"] for room_id, event in rooms.items()}


async def test_who_types_is_told_until_they_stop(readers: Readers) -> None:
    phone = ExtensionClient.of(readers.server, readers.alice, "typing")
    room_id = readers.room.room_id
    assert await phone.told() == {}
    await readers.server.typing.set_typing(readers.bob, room_id, True)
    assert typing(await phone.told()) == {room_id: [readers.bob]}
    assert await phone.told() == {}
    await readers.server.typing.set_typing(readers.bob, room_id, False)
    assert typing(await phone.told()) == {room_id: []}
    assert await phone.told() == {}


async def test_who_types_is_told_again_where_the_room_comes_back_into_view(readers: Readers) -> None:
    phone = ExtensionClient.of(readers.server, readers.alice, "typing")
    room_id = readers.room.room_id
    await readers.server.world.public_room(readers.alice)
    await readers.server.typing.set_typing(readers.bob, room_id, True)
    assert typing(await phone.told(1)) == {room_id: [readers.bob]}
    assert typing(await phone.told(0)) == {}
    assert typing(await phone.told(1)) == {room_id: [readers.bob]}
    assert typing(await phone.told(0)) == {}
    await readers.server.typing.set_typing(readers.bob, room_id, False)
    assert typing(await phone.told(0)) == {}
    assert typing(await phone.told(1)) == {room_id: []}
    assert typing(await phone.told(1)) == {}


async def test_typing_by_the_name_of_the_proposal(readers: Readers) -> None:
    name = "org.matrix.msc4508.typing"
    phone = ExtensionClient.of(readers.server, readers.alice, name)
    await readers.server.typing.set_typing(readers.bob, readers.room.room_id, True)
    assert typing(await phone.told(), name) == {readers.room.room_id: [readers.bob]}


async def test_rooms_one_is_not_in_and_people_one_ignores_are_silent(readers: Readers) -> None:
    ignored = {"ignored_users": {readers.bob: {}}}
    await readers.server.account_data.set_content(readers.alice, "m.ignored_user_list", ignored)
    carol = ExtensionClient.of(readers.server, readers.server.world.user("carol"), "typing")
    await readers.room.join(carol.user_id)
    await carol.told()
    await readers.room.leave(carol.user_id)
    await readers.server.typing.set_typing(readers.bob, readers.room.room_id, True)
    assert typing(await carol.told()) == {}
    alice = ExtensionClient.of(readers.server, readers.alice, "typing")
    assert typing(await alice.told()) == {}


async def test_typing_only_in_the_room_that_is_open(readers: Readers) -> None:
    phone = ExtensionClient.of(readers.server, readers.alice)
    phone.extensions = {"typing": {**ENABLED, "lists": []}}
    room_id = readers.room.room_id
    await readers.server.typing.set_typing(readers.bob, room_id, True)
    assert typing(await phone.told()) == {}
    opened = {room_id: {"timeline_limit": 1, "required_state": []}}
    assert typing(await phone.told(room_subscriptions=opened)) == {room_id: [readers.bob]}
