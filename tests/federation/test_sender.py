"""The queues to other servers: what is sent when, and what becomes of it when nobody answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from federation.outgoing import back_off_ms, coalescing_key
from federation.sender import MAX_CAUGHT_UP, Sender
from homeserver.errors import RemoteError
from homeserver.protocol.canonical_json import encode
from homeserver.storage import destinations, outbox
from homeserver.storage.database import Database
from homeserver.storage.numbers import Sequence
from tests.federation.conftest import StartServer
from tests.remote import Server

PEER = "peer.example"


@dataclass
class Recorded:
    """A server that takes transactions, or does not, and remembers those it was asked to take."""

    transactions: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    refuses: RemoteError | None = None

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        assert isinstance(transaction, bytes)
        content = json.loads(transaction)
        assert encode(content) == transaction, "what is signed is canonical JSON"
        self.transactions.append((server_name, transaction_id, content))
        if self.refuses is not None:
            raise self.refuses
        return {}

    def bodies(self, server_name: str = PEER) -> list[str]:
        """The text messages a server was sent, in order."""
        return [
            pdu["content"]["body"]
            for name, _, content in self.transactions
            for pdu in content["pdus"]
            if name == server_name and pdu["type"] == "m.room.message"
        ]

    def edus(self) -> list[tuple[str, Any]]:
        return [
            (edu["edu_type"], edu["content"])
            for _, _, content in self.transactions
            for edu in content["edus"]
        ]


def away(status: int | None = None) -> RemoteError:
    return RemoteError(PEER, "no answer", reachable=status is not None, transient=True, status=status)


@dataclass
class Story:
    """A server with a room that a user of ``PEER`` is in, and a sender whose peer is recorded."""

    server: Server
    room_id: str
    alice: str
    peer: Recorded
    sender: Sender

    async def say(self, *bodies: str) -> None:
        for body in bodies:
            await self.server.say(self.room_id, self.alice, body)
        await self.sender.idle()

    async def wait(self, seconds: float) -> None:
        self.server.network.clock.advance(seconds)
        self.sender.tick()
        await self.sender.idle()

    async def restart(self, *, crash: bool = False) -> None:
        """The sender ends, or just stops existing, and another one begins."""
        self.server.notifier.listeners.remove(self.sender.new_events)
        if not crash:
            await self.sender.close()
        self.sender = await start_sender(self.server, self.peer)

    async def end(self) -> None:
        await self.sender.close()


async def start_sender(server: Server, peer: Recorded) -> Sender:
    sender = Sender(
        db=server.db,
        events=server.events,
        client=peer,
        outbox_positions=await Sequence.open(server.db, "outbox"),
        clock=server.network.clock,
        server_name=server.name,
        allows=lambda name: name != "unwanted.example",
    )
    await sender.start(server.notifier.position)
    server.notifier.listeners.append(sender.new_events)
    return sender


@pytest.fixture
async def story(start: StartServer) -> AsyncIterator[Story]:
    server, peer_server = await start("here.example"), await start(PEER)
    alice = server.user("alice")
    room_id = await server.public_room(alice)
    await peer_server.join(peer_server.user("bob"), room_id, server)
    await server.network.settle()
    server.notifier.listeners.clear()
    peer = Recorded()
    story = Story(server, room_id, alice, peer, await start_sender(server, peer))
    yield story
    await story.end()


async def test_events_go_to_the_other_servers_in_the_room_in_order(story: Story) -> None:
    await story.say("one", "two", "three")

    assert story.peer.bodies() == ["one", "two", "three"]
    assert {name for name, _, _ in story.peer.transactions} == {PEER}


async def test_a_transaction_holds_at_most_50_pdus_and_100_edus(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("first")
    await story.say(*(str(number) for number in range(60)))
    story.peer.refuses = None
    story.sender.peer_is_alive(PEER)
    await story.wait(3600)
    for number in range(120):
        story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": str(number)}, durable=True)
    await written(story.server.db)
    await story.sender.idle()

    sizes = [(len(each["pdus"]), len(each["edus"])) for _, _, each in story.peer.transactions]
    assert max(pdus for pdus, _ in sizes) == 50
    assert max(edus for _, edus in sizes) == 100
    assert story.peer.bodies()[1:] == ["first", *(str(number) for number in range(60))]
    assert [content["message_id"] for _, content in story.peer.edus()] == [str(n) for n in range(120)]


async def test_an_unanswered_transaction_is_sent_again_as_it_was(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    story.peer.refuses = None

    await story.wait(1)
    assert len(story.peer.transactions) == 1
    await story.wait(6)

    first, second = story.peer.transactions
    assert first == second


async def test_a_destination_is_left_alone_for_longer_and_longer(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    for _ in range(3600):
        await story.wait(1)

    assert 5 <= len(story.peer.transactions) <= 8


async def test_what_is_refused_for_good_is_not_sent_again(story: Story) -> None:
    story.peer.refuses = away(400)
    await story.say("cursed")
    story.peer.refuses = None
    await story.say("fine")

    assert story.peer.bodies() == ["cursed", "fine"]


async def test_a_destination_that_speaks_is_tried_again_at_once(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    await story.wait(10)
    await story.wait(20)
    asked = len(story.peer.transactions)
    story.peer.refuses = None

    story.server.network.clock.advance(2)
    story.sender.peer_is_alive(PEER)
    await story.sender.idle()

    assert len(story.peer.transactions) == asked + 1


async def test_one_that_speaks_right_after_a_failure_is_tried_a_moment_later(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    for _ in range(4):
        await story.wait(3600)
    asked = len(story.peer.transactions)
    story.peer.refuses = None

    story.sender.peer_is_alive(PEER)
    await story.wait(1)
    assert len(story.peer.transactions) == asked
    await story.wait(1)

    assert len(story.peer.transactions) == asked + 1
    assert story.peer.bodies()[-1] == "hello"


async def test_one_that_only_speaks_is_not_tried_with_every_word(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")

    for _ in range(10):
        story.sender.peer_is_alive(PEER)
        await story.sender.idle()

    assert len(story.peer.transactions) == 1


@pytest.mark.parametrize("crash", [True, False])
async def test_after_a_restart_what_was_not_delivered_is_sent(story: Story, crash: bool) -> None:
    await story.say("delivered")
    story.peer.refuses = away()
    await story.say("one", "two")
    await story.restart(crash=crash)
    story.peer.refuses = None
    story.peer.transactions.clear()

    await story.wait(3600)

    assert story.peer.bodies()[-2:] == ["one", "two"]


async def test_after_a_clean_restart_nothing_is_sent_twice(story: Story) -> None:
    await story.say("delivered")
    await story.restart()
    await story.wait(60)
    await story.say("new")

    assert story.peer.bodies() == ["delivered", "new"]


async def test_what_was_sent_while_the_sender_was_not_there_is_found(story: Story) -> None:
    await story.say("before")
    story.server.notifier.listeners.clear()
    await story.sender.close()
    await story.server.say(story.room_id, story.alice, "meanwhile")
    story.sender = await start_sender(story.server, story.peer)
    await story.sender.idle()

    assert story.peer.bodies() == ["before", "meanwhile"]


async def test_after_a_long_absence_each_room_s_newest_event_is_sent(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("first")
    await story.wait(6)
    await story.wait(60)
    await story.say(*(str(number) for number in range(MAX_CAUGHT_UP + 1)))
    story.peer.refuses = None
    story.peer.transactions.clear()

    await story.wait(3600)

    assert story.peer.bodies() == [str(MAX_CAUGHT_UP)]


async def test_who_joins_is_not_sent_the_past(story: Story, start: StartServer) -> None:
    await story.say("past")
    third = await start("third.example")
    await third.join(third.user("carol"), story.room_id, story.server)
    await story.say("present")

    assert story.peer.bodies("third.example") == ["present"]


async def test_events_of_others_are_not_sent_on(story: Story) -> None:
    peer_server = story.server.network.servers[PEER]
    await peer_server.say(story.room_id, f"@bob:{PEER}", "mine")
    await story.server.network.settle()
    await story.sender.idle()

    assert await story.server.bodies(story.room_id) == ["mine"]
    assert story.peer.bodies() == []


async def test_durable_edus_outlive_a_restart_and_arrive_once(story: Story) -> None:
    story.peer.refuses = away()
    story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": "1"}, durable=True)
    await written(story.server.db)
    await story.sender.idle()
    await story.restart(crash=True)
    story.peer.refuses = None
    story.peer.transactions.clear()

    await story.wait(60)

    assert story.peer.edus() == [("m.direct_to_device", {"message_id": "1"})]
    assert await outbox.oldest(story.server.db.scan, PEER, 10) == []


async def test_what_may_be_lost_is_dropped_for_a_destination_that_is_down(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    typing = {"room_id": story.room_id, "user_id": story.alice, "typing": True}
    story.sender.send_edu(PEER, "m.typing", typing, durable=False)
    story.peer.refuses = None
    await story.wait(60)

    assert story.peer.edus() == []


async def test_a_newer_edu_about_the_same_replaces_one_that_waits(story: Story) -> None:
    for number in range(5):
        content = {"room_id": story.room_id, "user_id": story.alice, "typing": bool(number % 2)}
        story.sender.send_edu(PEER, "m.typing", content, durable=False)
    await story.sender.idle()

    assert [content["typing"] for _, content in story.peer.edus()] == [False]


async def test_nothing_goes_to_oneself_or_to_servers_that_are_not_wanted(story: Story) -> None:
    for name in (story.server.name, "unwanted.example"):
        story.sender.send_edu(name, "m.presence", {"push": []}, durable=False)
        story.sender.send_edu(name, "m.direct_to_device", {}, durable=True)
    await written(story.server.db)
    await story.sender.idle()

    assert story.peer.transactions == []


async def test_positions_are_stored_now_and_then(story: Story) -> None:
    await story.say("hello")
    await story.wait(61)
    await written(story.server.db)

    row = await destinations.get(story.server.db.read, PEER)
    assert row is not None
    assert row.sent_pos == story.server.notifier.position


def test_delays_grow_to_a_bound() -> None:
    delays = [back_off_ms(failures, 0.5) for failures in range(1, 40)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (5_000, 6 * 3600 * 1000)
    assert back_off_ms(1, 0.0) < back_off_ms(1, 1.0)


def test_edus_are_about_the_same_only_where_one_makes_the_other_pointless() -> None:
    def receipt(room_id: str, user_id: str) -> dict[str, Any]:
        return {room_id: {"m.read": {user_id: {"event_ids": ["$e"]}}}}

    assert coalescing_key("m.receipt", receipt("!a", "@u")) == coalescing_key(
        "m.receipt", receipt("!a", "@u")
    )
    assert coalescing_key("m.receipt", receipt("!a", "@u")) != coalescing_key(
        "m.receipt", receipt("!b", "@u")
    )
    assert coalescing_key("m.device_list_update", {}) != coalescing_key("m.device_list_update", {})


async def written(db: Database) -> None:
    """Everything queued so far is on disk, and those who waited for it know."""

    async def nothing(_: object) -> None:
        return

    await db.write(nothing)
