"""Servers that come back: what they are sent of what happened while they were away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from federation.outgoing import MAX_PDUS
from homeserver.storage import destinations, stays
from homeserver.storage.database import Database
from tests.federation.conftest import StartServer
from tests.federation.sending import PEER, Recorded, Story, away, start_sender, written

BOB = f"@bob:{PEER}"


@pytest.fixture
async def short(story: Story) -> Story:
    """A story in which more than three missed events are a long absence."""
    story.max_caught_up = 3
    await story.restart()
    return story


async def go_away(story: Story) -> None:
    """The peer has gone, and that is known."""
    story.peer.refuses = away()
    story.peer.taken.clear()
    await story.say("unheard")
    for seconds in (10, 30):
        await story.wait(seconds)


async def come_back(story: Story) -> None:
    story.peer.refuses = None
    story.peer.transactions.clear()
    await story.wait(48 * 3600)


def sent(peer: Recorded) -> list[tuple[str, Any]]:
    """Room and message, or membership, of each PDU that arrived."""
    return [
        (pdu["room_id"], pdu["content"].get("body") or pdu["content"].get("membership"))
        for content in peer.taken
        for pdu in content["pdus"]
    ]


async def rooms_with_bob(story: Story, count: int) -> list[str]:
    """More rooms that the peer is in."""
    server, peer_server = story.server, story.server.network.servers[PEER]
    rooms = []
    for _ in range(count):
        room_id = await server.public_room(story.alice)
        await peer_server.join(BOB, room_id, server)
        rooms.append(room_id)
    await story.sender.idle()
    return rooms


async def test_a_peer_learns_that_its_last_user_was_kicked(story: Story) -> None:
    await go_away(story)
    await story.say("one")
    await story.server.membership.kick(story.alice, story.room_id, BOB)
    await story.say("not for you")
    await come_back(story)

    assert [what for _, what in sent(story.peer)] == ["unheard", "one", "leave"]


async def test_a_peer_learns_of_a_ban_after_a_long_absence_and_a_restart(short: Story) -> None:
    await go_away(short)
    await short.say(*"12345")
    await short.server.membership.ban(short.alice, short.room_id, BOB)
    await short.say("not for you")
    await short.restart(crash=True)
    await come_back(short)

    assert [what for _, what in sent(short.peer)] == ["ban"]


async def test_a_peer_learns_that_an_invitation_was_taken_back(story: Story) -> None:
    """Carol's server is in no room with us: only the event itself is for it."""
    carol = story.server.network.servers[PEER].user("carol")
    other = await story.server.private_room(story.alice)
    await story.server.membership.invite(story.alice, other, carol)
    await go_away(story)
    await story.server.membership.kick(story.alice, other, carol)
    await come_back(story)

    assert (other, "leave") in sent(story.peer)


async def test_a_room_joined_meanwhile_gives_away_nothing_from_before(story: Story) -> None:
    other = await story.server.public_room(story.alice)
    await go_away(story)
    await story.server.say(other, story.alice, "before")
    await story.server.network.servers[PEER].join(BOB, other, story.server)
    await story.server.say(other, story.alice, "after")
    await come_back(story)

    assert [what for room_id, what in sent(story.peer) if room_id == other] == ["after"]


async def test_the_longest_quiet_room_comes_first_and_then_all_goes_on(short: Story) -> None:
    first, second = await rooms_with_bob(short, 2)
    await go_away(short)
    for room_id in (second, first, second, first, second):
        await short.server.say(room_id, short.alice, f"to {room_id[:5]}")
    await short.say("last")
    await come_back(short)
    await short.say("and on")

    rooms = [room_id for room_id, what in sent(short.peer)]
    assert rooms == [first, second, short.room_id, short.room_id]
    assert short.peer.taken_bodies()[-2:] == ["last", "and on"]
    row = await destinations.get(short.server.db.read, PEER)
    assert row is not None
    assert (row.failures, row.failing_since) == (0, 0)


async def test_a_catch_up_that_is_interrupted_goes_on_where_it_was(
    short: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one room to a transaction, and the power going after the second."""
    monkeypatch.setattr("federation.packing.MAX_PDUS", 1)
    rooms = [*await rooms_with_bob(short, 4), short.room_id]
    await go_away(short)
    for room_id in rooms:
        await short.server.say(room_id, short.alice, "news")
    short.peer.takes = 2
    await come_back(short)
    assert [room_id for room_id, _ in sent(short.peer)] == rooms[:2]

    await short.restart(crash=True)
    short.peer.takes = None
    await come_back(short)

    assert [room_id for room_id, _ in sent(short.peer)] == rooms


async def test_many_rooms_come_in_transactions_of_bounded_size(short: Story) -> None:
    rooms = await rooms_with_bob(short, MAX_PDUS + 5)
    await go_away(short)
    for room_id in rooms:
        await short.server.say(room_id, short.alice, "news")
    await come_back(short)

    assert [len(content["pdus"]) for content in short.peer.taken] == [MAX_PDUS, 6]
    assert {room_id for room_id, _ in sent(short.peer)} == {*rooms, short.room_id}


async def test_what_a_newest_event_does_not_build_on_is_sent_too(short: Story, start: StartServer) -> None:
    """A join that was prepared before a message and handed in after it stands beside that message."""
    third = await start("third.example")
    await third.join(third.user("carol"), short.room_id, short.server)
    await go_away(short)
    made = await third.client.make_join(
        short.server.name, short.room_id, third.user("dan"), ["10", "11", "12"]
    )
    await short.say(*"12345")
    event = third.send.sealed(made["event"], await third.room(short.room_id))
    await third.client.send_join(short.server.name, short.room_id, event.event_id, event.pdu)
    await short.sender.idle()
    await come_back(short)

    assert [what for _, what in sent(short.peer)] == ["5", "join"]


async def test_a_crash_before_a_new_server_is_known_loses_nothing(story: Story, start: StartServer) -> None:
    third = await start("third.example")
    await third.join(third.user("carol"), story.room_id, story.server)
    await story.sender.idle()
    await story.sender.close()
    story.server.notifier.listeners.clear()
    await story.server.say(story.room_id, story.alice, "first words")
    story.sender = await start_sender(story.server, story.peer)
    await story.sender.idle()

    assert story.peer.bodies("third.example") == ["first words"]


async def test_ended_stays_are_forgotten_once_delivered(story: Story) -> None:
    await story.server.membership.kick(story.alice, story.room_id, BOB)
    await story.sender.idle()
    pos = story.server.notifier.position
    assert len(await stays.missed(story.server.db.scan, PEER, 0, pos, 100)) > 0
    await story.wait(61)
    await story.wait(3600)
    await written(story.server.db)

    assert await stays.missed(story.server.db.scan, PEER, 0, pos, 100) == []


async def test_stays_on_both_engines(database: Database) -> None:
    """Joined at 10, left at 30, back at 50; owed one event at 70 elsewhere."""

    async def story(tx: Any) -> None:
        await stays.begin(tx, 1, ["a.example", "b.example"], 10)
        await stays.begin(tx, 1, ["a.example"], 20)
        await stays.end(tx, 1, ["a.example"], 30)
        await stays.begin(tx, 1, ["a.example"], 50)
        await stays.owe(tx, "a.example", 2, 70)
        await stays.owe(tx, "a.example", 1, 60)
        for pos in (5, 15, 30, 40, 55, 70):
            await _sent_here(tx, pos, 2 if pos == 70 else 1)

    await database.write(story)

    async def missed(server: str, after: int = 0, upto: int = 100) -> Sequence[int]:
        return [pos for pos, _ in await stays.missed(database.scan, server, after, upto, 10)]

    assert await missed("a.example") == [15, 30, 55, 70]
    assert await missed("b.example") == [15, 30, 40, 55]
    assert await missed("a.example", 15, 60) == [30, 55]
    newest = await stays.newest_missed(database.scan, "a.example", 0, 100, 10)
    assert [(each.pos, each.room_nid, each.joined_pos) for each in newest] == [
        (30, 1, 10),
        (55, 1, 50),
        (70, 2, 69),
    ]
    assert [each.pos for each in await stays.newest_missed(database.scan, "a.example", 30, 60, 10)] == [55]
    assert await stays.servers_owed(database.scan, 35) == {"a.example"}, "no room of that time is stored"
    await database.write(lambda tx: stays.end_all(tx, 1, 90))
    assert await database.write(stays.forget_delivered) == 0, "nobody is known to have had anything"
    row = destinations.Destination("a.example", 69)
    await database.write(lambda tx: destinations.put(tx, row))
    assert await database.write(stays.forget_delivered) == 1


async def _sent_here(tx: Any, pos: int, room_nid: int) -> None:
    await tx.execute(
        """INSERT INTO events (event_nid, event_id, room_nid, pos, depth, origin_server_ts, flags, auth_nids)
           VALUES ($1, $2, $3, $1, 1, 1, 4, $4)""",
        pos,
        f"${pos}",
        room_nid,
        b"",
    )
