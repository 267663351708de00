"""What other servers' events cost, and what a message to many servers does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from federation import packing
from federation.handing_out import HANDED_OUT_AT_ONCE
from federation.sender import Sender
from homeserver.protocol import event_format, unsealing
from homeserver.rooms.announcement import NewEvents
from homeserver.storage.events import StoredEvent
from tests.federation.sending import Recorded, Story
from tests.performance.counting import Statements, counted_calls, counted_statements, counted_tasks
from tests.remote import Network, Server


async def chain(network: Network, here: Server, there: Server, *counts: int) -> tuple[str, list[list[Any]]]:
    """A room, and PDUs of a user elsewhere that build one upon the other, by transaction."""
    bob = there.user("bob")
    room_id = await here.public_room(here.user("alice"))
    await there.join(bob, room_id, here)
    await network.settle()
    network.down.add(here.name)
    said = [[await there.say(room_id, bob, str(number)) for number in range(count)] for count in counts]
    await there.sender.idle()
    network.down.clear()
    return room_id, [[stored.event.pdu for stored in part] for part in said]


async def sent(there: Server, here: Server, name: str, pdus: list[Any]) -> Statements:
    """The statements that taking in a transaction takes; every PDU in it is taken."""
    body = {"origin": there.name, "origin_server_ts": 1, "pdus": pdus, "edus": []}
    async with counted_statements(here.db) as seen:
        results = await there.client.send_transaction(here.name, name, body)
    assert list(results.values()) == [{}] * len(pdus)
    return seen


async def test_a_transaction_of_fifty_events_is_read_stored_and_announced_as_one(
    network: Network, here: Server, there: Server
) -> None:
    room_id, (first, one, fifty) = await chain(network, here, there, 1, 1, 50)
    await sent(there, here, "t0", first)
    announced: list[NewEvents] = []
    here.notifier.listeners.append(announced.append)

    of_one = await sent(there, here, "t1", one)
    of_fifty = await sent(there, here, "t2", fifty)

    assert [len(news.events) for news in announced] == [1, 50]
    assert [statements.written.count("COMMIT") for statements in (of_one, of_fifty)] == [2, 2]
    assert len(of_fifty.read) <= len(of_one.read) <= 8
    assert await here.bodies(room_id) == [str(number) for number in range(50)]


async def test_each_form_of_a_pdu_is_encoded_once_and_one_person_is_judged_once(
    network: Network, here: Server, there: Server
) -> None:
    _, (fifty,) = await chain(network, here, there, 50)

    with (
        counted_calls(event_format, "encode_strict") as looked_through,
        counted_calls(unsealing, "encode_again") as encoded,
        counted_calls(unsealing, "check_signature") as verified,
    ):
        await sent(there, here, "t1", fifty)

    assert (len(looked_through), len(encoded), len(verified)) == (50, 100, 50)


async def test_few_signatures_are_verified_without_another_process(
    network: Network, here: Server, there: Server
) -> None:
    _, (fifty,) = await chain(network, here, there, 50)

    await sent(there, here, "t1", fifty)

    workers = here.federation.verifier.workers
    assert workers is None or workers.running == 0


@pytest.mark.parametrize("destinations", [10, 1000])
async def test_who_sends_a_message_does_not_wait_for_all_its_destinations(
    story: Story, destinations: int
) -> None:
    await story.say("hello")
    room = await story.room()
    message = room.recent[-1]
    room.servers = {f"s{number}.example": 1 for number in range(destinations)}
    sent_before = len(story.peer.transactions)

    with counted_tasks() as made, counted_calls(packing, "transaction_json") as bodies:
        story.sender.new_events(
            NewEvents(pos=message.pos or 0, room=room, events=(message,), users=frozenset())
        )
        made_at_once = len(made)
        await story.sender.idle()

    assert made_at_once <= HANDED_OUT_AT_ONCE + 1
    assert len(story.peer.transactions) - sent_before == destinations
    assert len(bodies) <= 1


class Silent(Recorded):
    """A server that takes its time with every transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.answers = asyncio.Event()

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        self.asked.put_nowait(server_name)
        await self.answers.wait()
        return await super().send_transaction(server_name, transaction_id, transaction)


async def test_an_event_only_waits_for_destinations_that_have_not_answered_yet(story: Story) -> None:
    await story.say("hello", "again")
    room = await story.room()
    first, second = list(room.recent)[-2:]
    silent = story.peer = Silent()
    await story.restart()
    room.servers = {f"s{number}.example": 1 for number in range(300)}

    def send(message: StoredEvent) -> None:
        news = NewEvents(pos=message.pos or 0, room=room, events=(message,), users=frozenset())
        story.sender.new_events(news)

    send(first)
    asked = {await silent.asked.get() for _ in room.servers}
    with counted_calls(Sender, "_wake") as woken, counted_tasks() as made:
        send(second)
        await asyncio.sleep(0.01)  # the rest of them get it in turns
    silent.answers.set()
    await story.sender.idle()

    assert asked == room.servers.keys()
    assert woken == []
    assert len(made) <= 1
    assert all(silent.bodies(server_name) == ["hello", "again"] for server_name in room.servers)
