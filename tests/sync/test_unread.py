"""Unread counts."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.rooms.receipts import READ, READ_PRIVATE
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.sync import rulesets
from tests.sync.server import Client, SyncServer
from tests.world import WorldRoom

THREADS = {"room": {"timeline": {"unread_thread_notifications": True}}}


async def two_in_a_room(server: SyncServer) -> tuple[Client, Client, WorldRoom]:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    return alice, bob, room


def counts(response: dict[str, Any], room: WorldRoom) -> tuple[int, int]:
    unread = response["rooms"]["join"][room.room_id]["unread_notifications"]
    return unread["notification_count"], unread["highlight_count"]


async def mention(room: WorldRoom, sender: str, user_id: str) -> StoredEvent:
    content = {"msgtype": "m.text", "body": "you!", "m.mentions": {"user_ids": [user_id]}}
    return await room.send_event(sender, "m.room.message", content)


async def test_messages_of_others_count_and_mentions_highlight(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    await room.send(alice.user_id, "1")
    await mention(room, alice.user_id, bob.user_id)
    assert counts(await bob.sync(), room) == (2, 1)


async def test_whoever_sends_a_message_has_read_what_was_before_it(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    await room.send(alice.user_id, "1")
    await room.set_state(
        bob.user_id, "m.room.member", {"membership": "join", "displayname": "B"}, bob.user_id
    )
    assert counts(await bob.sync(), room) == (1, 0)
    await room.send(bob.user_id, "my own")
    await room.send(alice.user_id, "2")
    assert counts(await bob.sync(), room) == (1, 0)


async def test_a_receipt_clears_what_is_before_it(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    first = await room.send(alice.user_id, "1")
    second = await room.send(alice.user_id, "2")
    await bob.sync()
    await server.receipts.read(bob.user_id, room.room_id, READ, first.id)
    assert counts(await bob.sync(), room) == (1, 0)
    await server.receipts.read(bob.user_id, room.room_id, READ_PRIVATE, second.id)
    assert counts(await bob.sync(), room) == (0, 0)


async def test_counts_are_the_same_after_a_restart(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice, bob, room = await two_in_a_room(server)
    read = await room.send(alice.user_id, "read")
    await server.receipts.read(bob.user_id, room.room_id, READ, read.id)
    for number in range(60):
        await room.send(alice.user_id, str(number))
    await mention(room, alice.user_id, bob.user_id)
    assert counts(await bob.sync(), room) == (61, 1)
    bob.server, bob.token = await SyncServer.open(sqlite_database), None
    assert counts(await bob.sync(), room) == (61, 1)


async def test_what_was_said_before_joining_is_not_unread(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.send(alice.user_id, "before")
    await room.join(bob.user_id)
    await room.send(alice.user_id, "after")
    assert counts(await bob.sync(), room) == (1, 0)


async def test_threads_are_counted_apart_for_who_asks(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    root = await room.send(alice.user_id, "root")
    content = {
        "msgtype": "m.text",
        "body": "in it",
        "m.relates_to": {"rel_type": "m.thread", "event_id": root.id},
    }
    reply = await room.send_event(alice.user_id, "m.room.message", content)
    token = bob.token
    section = (await bob.sync(filter=THREADS))["rooms"]["join"][room.room_id]
    assert section["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    assert section["unread_thread_notifications"] == {
        root.id: {"notification_count": 1, "highlight_count": 0}
    }
    bob.token = token
    assert counts(await bob.sync(), room) == (2, 0)
    await server.receipts.read(bob.user_id, room.room_id, READ, reply.id, root.id)
    section = (await bob.sync(filter=THREADS))["rooms"]["join"][room.room_id]
    assert section["unread_notifications"]["notification_count"] == 1
    assert section["unread_thread_notifications"] == {}


async def test_a_room_of_two_with_a_silent_rule_counts_nothing(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    rules = {"global": {"override": [{"rule_id": ".m.rule.master", "enabled": True, "actions": []}]}}
    await server.account_data.set_content(bob.user_id, "m.push_rules", rules)
    await room.send(alice.user_id, "1")
    assert counts(await bob.sync(), room) == (0, 0)


async def test_no_more_than_500_are_counted_and_reading_shows_those_before(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    root = await room.send(alice.user_id, "root")
    for number in range(600):
        in_thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.id}} if number >= 450 else {}
        content = {"msgtype": "m.text", "body": str(number), **in_thread}
        last = await room.send_event(alice.user_id, "m.room.message", content)
        if number % 50 == 0:
            await bob.sync()
    assert counts(await bob.sync(), room) == (500, 0)
    await server.receipts.read(bob.user_id, room.room_id, READ, last.id, root.id)
    assert counts(await bob.sync(), room) == (451, 0)


async def test_a_room_left_and_joined_again_begins_anew(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    await room.send(alice.user_id, "1")
    assert counts(await bob.sync(), room) == (1, 0)
    await room.leave(bob.user_id)
    await room.send(alice.user_id, "not for Bob")
    await room.join(bob.user_id)
    await room.send(alice.user_id, "2")
    assert counts(await bob.sync(), room) == (1, 0)


async def test_a_redacted_message_is_not_unread(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    await room.send(alice.user_id, "1")
    mistake = await mention(room, alice.user_id, bob.user_id)
    assert counts(await bob.sync(), room) == (2, 1)
    await room.redact(alice.user_id, mistake.id)
    assert counts(await bob.sync(), room) == (1, 0)


async def test_a_rule_about_members_looks_at_how_many_there_were(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    rule = {"rule_id": ".m.rule.message", "enabled": True, "actions": []}
    await server.account_data.set_content(bob.user_id, "m.push_rules", {"global": {"underride": [rule]}})
    await room.send(alice.user_id, "among two")
    await room.join(server.world.user("carol"))
    await room.send(alice.user_id, "among three")
    assert counts(await bob.sync(), room) == (1, 0)
    bob.server, bob.token = await SyncServer.open(server.world.db), None
    assert counts(await bob.sync(), room) == (1, 0)


async def test_rules_that_are_read_again_and_say_the_same_take_no_new_count(
    server: SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rulesets, "_REMEMBERED_USERS", 1)
    alice, bob, room = await two_in_a_room(server)
    await room.send(alice.user_id, "1")
    assert counts(await bob.sync(), room) == (1, 0)
    await alice.sync()

    def fail(*_: object) -> None:
        raise AssertionError("counted from the beginning")

    monkeypatch.setattr(server.reading.unread, "_anew", fail)
    await room.send(alice.user_id, "2")
    assert counts(await bob.sync(), room) == (2, 0)
