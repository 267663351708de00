"""Unread counts and push rules where threads notify those who are subscribed to them (MSC4306)."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.storage.database import Database
from homeserver.users.push_rules import PUSH_RULES
from tests.sync.server import Client, SyncServer
from tests.world import WorldRoom


@pytest.fixture
async def server(sqlite_database: Database) -> SyncServer:
    return await SyncServer.open(sqlite_database, thread_subscriptions=True)


class Talk:
    """Alice writes in threads, and Bob reads."""

    def __init__(self, server: SyncServer, room: WorldRoom, alice: Client, bob: Client) -> None:
        self.server, self.room, self.alice, self.bob = server, room, alice, bob
        self.subscriptions = server.reading.thread_subscriptions

    @classmethod
    async def begin(cls, server: SyncServer) -> Talk:
        alice, bob = server.client("alice"), server.client("bob")
        room = await server.world.public_room(alice.user_id)
        await room.join(bob.user_id)
        return cls(server, room, alice, bob)

    async def say(self, root_id: str | None = None, **more: Any) -> str:
        content: dict[str, Any] = {"msgtype": "m.text", "body": "hello", **more}
        if root_id is not None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": root_id}
        return (await self.room.send_event(self.alice.user_id, "m.room.message", content)).id

    async def subscribe(self, root_id: str) -> None:
        await self.subscriptions.subscribe(self.bob.user_id, self.room.room_id, root_id)

    async def unread(self) -> tuple[int, int]:
        """Bob's notifications and highlights in the room, as everybody is told who asks."""
        core = self.server.world.core
        room = await core.rooms.get(self.room.room_id)
        total = (
            await self.server.reading.unread.counts(room, self.bob.user_id, core.notifier.position)
        ).total
        return total.notifications, total.highlights


async def test_only_threads_that_one_is_subscribed_to_notify(server: SyncServer) -> None:
    talk = await Talk.begin(server)
    wanted, other = await talk.say(), await talk.say()
    assert await talk.unread() == (2, 0)
    await talk.subscribe(wanted)
    for root in (wanted, other, wanted):
        await talk.say(root)
    assert await talk.unread() == (4, 0)
    response = await talk.bob.sync()
    unread = response["rooms"]["join"][talk.room.room_id]["unread_notifications"]
    assert unread == {"notification_count": 4, "highlight_count": 0}


async def test_a_mention_notifies_in_any_thread(server: SyncServer) -> None:
    talk = await Talk.begin(server)
    root = await talk.say()
    await talk.say(root, **{"m.mentions": {"user_ids": [talk.bob.user_id]}})
    assert await talk.unread() == (2, 1)


async def test_a_subscription_counts_for_what_is_unread_already_and_its_end_too(server: SyncServer) -> None:
    talk = await Talk.begin(server)
    root = await talk.say()
    await talk.say(root)
    assert await talk.unread() == (1, 0)
    await talk.subscribe(root)
    assert await talk.unread() == (2, 0)
    await talk.subscriptions.unsubscribe(talk.bob.user_id, talk.room.room_id, root)
    assert await talk.unread() == (1, 0)


async def test_a_subscribed_thread_notifies_in_a_room_that_is_muted(server: SyncServer) -> None:
    talk = await Talk.begin(server)
    root = await talk.say()
    await talk.subscribe(root)
    await server.people.push_rules.put(
        talk.bob.user_id, "room", {"rule_id": talk.room.room_id, "actions": []}
    )
    await talk.say(root)
    await talk.say()
    assert await talk.unread() == (1, 0)


async def test_counts_are_the_same_after_a_restart(server: SyncServer, sqlite_database: Database) -> None:
    talk = await Talk.begin(server)
    wanted, other = await talk.say(), await talk.say()
    await talk.subscribe(wanted)
    await talk.say(wanted)
    await talk.say(other)
    before = await talk.unread()
    talk.server = await SyncServer.open(sqlite_database, thread_subscriptions=True)
    assert await talk.unread() == before == (3, 0)


async def test_switched_off_the_rules_leave_threads_alone(server: SyncServer) -> None:
    talk = await Talk.begin(server)
    root = await talk.say()
    rules = server.people.push_rules
    for name in ("unsubscribed_thread", "subscribed_thread"):
        rule_id = f".io.element.msc4306.rule.{name}"
        await rules.set_enabled(talk.bob.user_id, "postcontent", rule_id, False)
    await talk.say(root)
    assert await talk.unread() == (2, 0)


async def test_clients_are_given_the_rules(server: SyncServer) -> None:
    bob = server.client("bob")
    events = (await bob.sync())["account_data"]["events"]
    ruleset = next(event["content"]["global"] for event in events if event["type"] == PUSH_RULES)
    assert [rule["rule_id"] for rule in ruleset["postcontent"]] == [
        ".io.element.msc4306.rule.unsubscribed_thread",
        ".io.element.msc4306.rule.subscribed_thread",
    ]


async def test_where_they_are_not_wanted_nothing_is_changed(sqlite_database: Database) -> None:
    talk = await Talk.begin(await SyncServer.open(sqlite_database))
    root = await talk.say()
    await talk.say(root)
    assert "postcontent" not in await talk.server.people.push_rules.ruleset(talk.bob.user_id)
    assert await talk.unread() == (2, 0)
    await talk.subscribe(root)
    assert await talk.unread() == (2, 0)
