"""Sticky events (MSC4354) between servers: who is handed them, and those that were soft-failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.protocol.signing import event_id_of
from homeserver.rooms.send import Draft
from homeserver.rooms.sticky_events import MAX_OF_SERVER
from homeserver.storage.events import StoredEvent
from tests.federation.conftest import StartServer
from tests.federation.sending import PEER, Recorded, Story, away, start_sender
from tests.federation.test_transactions import message, shared_room, transaction, unsent
from tests.remote import Network, Server

MEMBER = "org.matrix.msc4143.rtc.member"


def sticky(sender: str, name: str = "x", duration_ms: int = 600_000) -> Draft:
    return Draft(sender, MEMBER, {"msc4354_sticky_key": name}, sticky_ms=duration_ms)


async def sticking(server: Server, room_id: str) -> list[str]:
    """The events that clients are told of now."""
    room = await server.room(room_id)
    found = server.core.sticky.between([room.nid], 0, 2**62, 10_000)
    events = await server.events.by_nids([one.event_nid for one in found])
    return [events[one.event_nid].id for one in found]


async def until_sticking(server: Server, room_id: str, event_ids: list[str]) -> None:
    async with asyncio.timeout(30):
        while await sticking(server, room_id) != event_ids:  # noqa: ASYNC110 - work in the background
            await asyncio.sleep(0.01)


async def test_the_other_server_lets_it_stick(here: Server, there: Server, network: Network) -> None:
    room_id, alice, _ = await shared_room(here, there)
    event = await here.send.send(room_id, sticky(alice))
    await network.settle()
    arrived = await there.events.by_id(event.id)
    assert arrived is not None
    assert arrived.event.pdu["msc4354_sticky"] == {"duration_ms": 600_000}
    assert await sticking(there, room_id) == [event.id]
    network.clock.advance(600)
    assert await sticking(there, room_id) == []


async def test_a_server_that_comes_is_handed_what_sticks(
    here: Server, there: Server, network: Network, start: StartServer
) -> None:
    room_id, alice, bob = await shared_room(here, there)
    late = await start("late.example")
    own = await here.send.send(room_id, sticky(alice))
    over = await here.send.send(room_id, sticky(alice, "short", 1000))
    theirs = await there.send.send(room_id, sticky(bob))
    for number in range(60):
        await here.say(room_id, alice, str(number))
    await network.settle()
    network.clock.advance(2)
    carol = late.user("carol")
    await late.join(carol, room_id, here)
    await network.settle()
    for server in (here, there):
        network.clock.advance(10)
        server.sender.tick()
    await network.settle()
    assert set(await sticking(late, room_id)) == {own.id, theirs.id}
    assert over.id not in await sticking(late, room_id)
    told = await here.say(room_id, alice, "still there")
    await network.settle()
    assert await late.events.by_id(told.id) is not None


async def test_also_by_a_server_that_was_stopped_right_then(start: StartServer) -> None:
    here, peer_server = await start("here.example"), await start(PEER)
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    event = await here.send.send(room_id, sticky(alice))
    await peer_server.join(peer_server.user("bob"), room_id, here)
    after = await here.send.send(room_id, sticky(alice, "after"))
    await here.network.settle()
    here.notifier.listeners.clear()
    peer = Recorded()
    sender = await start_sender(here, peer)
    await sender.idle()
    sent = [pdu for _, _, body in peer.transactions for pdu in body["pdus"] if pdu["type"] == MEMBER]
    assert event.event.pdu in sent
    assert sent.count(after.event.pdu) <= 1
    await sender.close()


async def test_a_soft_failed_event_sticks_once_it_is_allowed(
    here: Server, there: Server, network: Network
) -> None:
    room_id, alice, bob = await shared_room(here, there)
    carol = there.user("carol")
    await there.join(carol, room_id, here)
    await network.settle()
    pdu = await unsent(there, room_id, sticky(bob))
    await here.set_state(room_id, alice, "m.room.member", {"membership": "leave"}, bob)
    await there.client.send_transaction(here.name, "t1", transaction(pdu))
    event_id = str(event_id_of(pdu, (await here.room(room_id)).rules))
    stored = await here.events.by_id(event_id)
    assert stored is not None
    assert stored.soft_failed
    assert await sticking(here, room_id) == []
    await here.say(room_id, alice, "nothing changes by this")
    assert await sticking(here, room_id) == []
    before = here.notifier.position
    await network.settle()
    await there.join(bob, room_id, here)
    await until_sticking(here, room_id, [event_id])
    assert here.notifier.position > before
    # A restarted server knows it too.
    back = await here.restarted()
    assert await sticking(back, room_id) == [event_id]
    await back.close()


async def test_what_came_as_history_sticks_when_it_is_sent(
    here: Server, there: Server, network: Network
) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    event = await here.send.send(room_id, sticky(alice))
    network.hold("/_matrix/federation/v1/send/")
    await there.join(there.user("bob"), room_id, here)
    room = await there.room(room_id)
    await there.backfill.fill(room, -(2**62), 2**62, 50)
    assert await there.events.by_id(event.id) is not None
    assert await sticking(there, room_id) == []
    network.held["/_matrix/federation/v1/send/"].set()
    await network.settle()
    await until_sticking(there, room_id, [event.id])


async def test_one_server_makes_only_so_many_stick(here: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.rooms.sticky_events.MAX_OF_SERVER", 3)
    assert MAX_OF_SERVER > 3
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    sent = [(await here.send.send(room_id, sticky(alice, str(number)))).id for number in range(5)]
    assert await sticking(here, room_id) == sent[:3]


async def test_few_soft_failed_ones_wait_to_be_judged_again(
    here: Server, there: Server, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.rooms.sticky_events.MAX_SOFT_FAILED", 2)
    room_id, alice, bob = await shared_room(here, there)
    pdus = [await unsent(there, room_id, sticky(bob, str(number))) for number in range(4)]
    await here.set_state(room_id, alice, "m.room.member", {"membership": "leave"}, bob)
    await there.client.send_transaction(here.name, "t1", transaction(*pdus))
    room = await here.room(room_id)
    assert await sticking(here, room_id) == []
    assert len(here.core.sticky.pending(room.nid)) == 2


def sent_keys(story: Story) -> list[str]:
    return [
        pdu["content"]["msc4354_sticky_key"]
        for name, _, content in story.peer.transactions
        for pdu in content["pdus"]
        if name == PEER and pdu["type"] == MEMBER
    ]


async def stick(story: Story, name: str) -> StoredEvent:
    event = await story.server.send.send(story.room_id, sticky(story.alice, name, 3_600_000))
    await story.sender.idle()
    return event


@pytest.fixture
def patient(story: Story) -> Story:
    """After an absence, no more than three events are sent one by one."""
    story.max_caught_up = 3
    return story


async def test_what_sticks_is_sent_after_a_long_absence(patient: Story) -> None:
    story = patient
    await story.restart()
    story.peer.refuses = away()
    await stick(story, "first")
    await story.say(*(str(number) for number in range(10)))
    await stick(story, "second")
    await story.say("last")
    story.peer.refuses = None
    story.peer.transactions.clear()
    story.sender.peer_is_alive(PEER)
    await story.wait(600)
    assert story.peer.bodies() == ["last"]
    assert set(sent_keys(story)) == {"first", "second"}


async def test_nothing_of_it_is_lost_by_a_transaction_that_fails(story: Story) -> None:
    await story.say("before")
    event = await stick(story, "x")
    story.peer.transactions.clear()
    outgoing = story.sender._of(PEER)
    outgoing.add_sticky([event.nid, event.nid])
    story.peer.refuses = away()
    story.sender._wake(outgoing)
    await story.sender.idle()
    for _ in range(5):
        await story.wait(100)
    story.peer.refuses = None
    story.peer.transactions.clear()
    await story.wait(1000)
    assert sent_keys(story) == ["x"]
    assert not outgoing.sticky


async def test_a_message_that_does_not_stick_is_not_pushed(story: Story) -> None:
    await story.say("hello")
    draft: Any = message(story.alice)
    assert draft.sticky_ms is None
    assert not story.sender._of(PEER).sticky
