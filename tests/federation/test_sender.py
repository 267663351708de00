"""The queues to other servers: what is sent when, and what becomes of it when nobody answers."""

from __future__ import annotations

import pytest

from federation.outgoing import back_off_ms
from federation.packing import MAX_CAUGHT_UP
from homeserver.storage import destinations, outbox
from tests.federation.conftest import StartServer
from tests.federation.sending import PEER, Story, away, start_sender, written


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

    assert 15 <= len(story.peer.transactions) <= 30


async def test_what_is_refused_for_good_is_not_sent_again(story: Story) -> None:
    story.peer.refuses = away(400, "M_BAD_JSON")
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
    for hours in (1, 2, 4, 8):
        await story.wait(hours * 3600)
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
    story.sender.send_typing(await story.room(), story.alice, True)
    story.peer.refuses = None
    await story.wait(60)

    assert story.peer.edus() == []


async def test_a_newer_edu_about_the_same_replaces_one_that_waits(story: Story) -> None:
    for number in range(5):
        story.sender.send_typing(await story.room(), story.alice, bool(number % 2))
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
    minute, day = 60_000, 24 * 3600 * 1000
    delays = [back_off_ms(failing_ms, 0.5) for failing_ms in range(0, 5 * day, minute)]
    assert delays == sorted(delays)
    assert (delays[0], delays[6], delays[-1]) == (5_000, 2 * minute, day)
    assert back_off_ms(0, 0.0) < back_off_ms(0, 1.0)


def test_a_server_that_is_away_for_days_is_not_tried_often() -> None:
    failing_ms, attempts = 0, 0
    while failing_ms < 7 * 24 * 3600 * 1000:
        failing_ms += back_off_ms(failing_ms, 0.5)
        attempts += 1
    assert attempts < 50


async def test_one_bad_event_among_many_does_not_keep_back_the_others(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("first")
    await story.say("1", "2", "cursed", "3", "4")
    story.peer.refuses, story.peer.allergy = None, "cursed"
    await story.wait(60)
    await story.say("after")

    assert story.peer.taken_bodies() == ["first", "1", "2", "3", "4", "after"]
    assert len(story.peer.transactions) < 15


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502])
async def test_who_is_no_homeserver_any_more_is_left_alone_and_owed_everything(
    story: Story, status: int
) -> None:
    story.peer.refuses = away(status)
    await story.say("hello")
    for _ in range(10):
        await story.wait(1)
    assert len(story.peer.transactions) <= 3
    story.peer.refuses = None
    await story.wait(3600)

    assert story.peer.taken_bodies() == ["hello"]


async def test_a_wish_to_be_left_alone_is_granted_within_bounds(story: Story) -> None:
    story.peer.refuses = away(429, "M_LIMIT_EXCEEDED", retry_after_ms=600_000)
    await story.say("hello")
    for _ in range(9):
        await story.wait(60)
    assert len(story.peer.transactions) == 1
    await story.wait(61)
    assert len(story.peer.transactions) == 2

    story.peer.refuses = away(429, "M_LIMIT_EXCEEDED", retry_after_ms=10**12)
    await story.wait(700)
    story.peer.refuses = None
    await story.wait(3601)
    assert story.peer.taken_bodies() == ["hello"]


async def test_the_same_things_have_the_same_id_after_a_crash(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    await story.restart(crash=True)
    story.peer.refuses = None
    await story.wait(60)

    first, *_, last = [transaction_id for _, transaction_id, _ in story.peer.transactions]
    assert first == last


async def test_a_sign_of_life_while_it_is_tried_makes_the_next_try_a_soon_one(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    for _ in range(8):
        await story.wait(48 * 3600)
    story.peer.while_asked = lambda: story.sender.peer_is_alive(PEER)
    await story.wait(48 * 3600)
    story.peer.while_asked, story.peer.refuses = None, None
    await story.wait(7)

    assert story.peer.taken_bodies() == ["hello"]


async def test_one_that_speaks_all_the_time_and_never_listens_is_tried_ever_less(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    for _ in range(600):
        await story.wait(1)
        story.sender.peer_is_alive(PEER)
        await story.sender.idle()

    assert 8 <= len(story.peer.transactions) <= 20


async def test_failures_and_their_beginning_are_kept_across_restarts(story: Story) -> None:
    began = story.server.network.clock.now_ms()
    story.peer.refuses = away()
    await story.say("hello")
    for hours in (1, 2, 4, 8):
        await story.wait(hours * 3600)
    row = await destinations.get(story.server.db.read, PEER)
    assert row is not None
    assert (row.failing_since, row.failures) == (began, 5)
    await story.restart()
    asked = len(story.peer.transactions)
    await story.wait(1)
    assert len(story.peer.transactions) == asked
    story.peer.refuses = None
    story.sender.peer_is_alive(PEER)
    await story.sender.idle()

    assert story.peer.taken_bodies() == ["hello"]
    row = await destinations.get(story.server.db.read, PEER)
    assert row is not None
    assert (row.failures, row.retry_at, row.failing_since) == (0, 0, 0)


async def test_an_answer_to_any_request_ends_the_back_off(story: Story) -> None:
    """A query on behalf of a user is made although the server fails, and shows that it works again."""
    server, network = story.server, story.server.network
    server.notifier.listeners.append(server.sender.new_events)
    network.down.add(PEER)
    await server.say(story.room_id, story.alice, "hello")
    await server.sender.idle()
    network.down.discard(PEER)
    network.clock.advance(10)
    assert await server.client.request("GET", PEER, "/_matrix/federation/v1/version")
    await network.settle()

    assert await network.servers[PEER].bodies(story.room_id) == ["hello"]


async def test_a_thousand_dead_destinations_cost_nothing_while_they_wait(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.peer.refuses = away()
    room = await story.room()
    room.servers.update({f"s{number}.example": 1 for number in range(1000)})
    await story.say("hello")
    assert len(story.peer.transactions) == 1001
    woken: list[str] = []
    monkeypatch.setattr(story.sender, "_wake", lambda outgoing: woken.append(outgoing.server_name))
    story.server.network.clock.advance(1)
    story.sender.tick()
    assert woken == []
    story.server.network.clock.advance(6)
    story.sender.tick()
    assert len(woken) == 1001
