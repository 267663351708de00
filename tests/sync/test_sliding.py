"""What sliding sync tells of rooms, step by step, in the form that clients send today."""

from __future__ import annotations

import asyncio

import pytest

from homeserver.errors import MatrixError
from homeserver.sync.sliding import connections
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, bodies, members, sliding_of, state_of, top


async def test_a_first_request_tells_the_latest_rooms(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob", displayname="Bob")
    phone = SlidingClient(sliding_of(server), alice)
    rooms = [await server.world.public_room(alice, name=f"Room {number}") for number in range(3)]
    await rooms[0].join(bob)
    await rooms[0].send(bob, "hello")
    response = await phone.sync(lists={"all": top(1)}, txn_id="first")
    assert response["txn_id"] == "first"
    assert response["lists"] == {"all": {"count": 3}}
    assert list(response["rooms"]) == [rooms[0].room_id, rooms[2].room_id]
    told = response["rooms"][rooms[0].room_id]
    assert bodies(told) == ["hello"]
    assert told["initial"]
    assert told["limited"]
    assert told["num_live"] == 0
    assert (told["name"], told["joined_count"], told["invited_count"]) == ("Room 0", 2, 0)
    assert "heroes" not in told
    assert "invite_state" not in told
    assert told["is_dm"] is False
    assert told["notification_count"] == 1
    assert told["bump_stamp"] > response["rooms"][rooms[2].room_id]["bump_stamp"]
    assert {("m.room.create", ""), ("m.room.name", ""), ("m.room.power_levels", "")} <= state_of(told)
    assert members(told["required_state"]) == {alice, bob}


async def test_the_next_request_tells_only_what_changed(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    tea, coffee = [await server.world.public_room(alice, name=name) for name in ("Tea", "Coffee")]
    await phone.sync(lists={"all": top()})
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}
    await tea.send(alice, "kettle")
    told = (await phone.sync(lists={"all": top()}))["rooms"]
    assert list(told) == [tea.room_id]
    assert bodies(told[tea.room_id]) == ["kettle"]
    assert not told[tea.room_id]["limited"]
    assert told[tea.room_id]["num_live"] == 1
    assert told[tea.room_id]["required_state"] == []
    assert not {"initial", "name", "joined_count", "heroes"} & set(told[tea.room_id])
    await coffee.set_state(alice, "m.room.name", {"name": "Espresso"})
    told = (await phone.sync(lists={"all": top()}))["rooms"]
    assert list(told) == [coffee.room_id]
    assert told[coffee.room_id]["name"] == "Espresso"
    assert state_of(told[coffee.room_id]) == {("m.room.name", "")}


async def test_a_larger_range_tells_the_rooms_that_were_not_told(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    rooms = [(await server.world.public_room(alice)).room_id for _ in range(6)]
    first = await phone.sync(lists={"all": top(1)})
    assert list(first["rooms"]) == [rooms[5], rooms[4]]
    second = await phone.sync(lists={"all": top(3)})
    assert list(second["rooms"]) == [rooms[3], rooms[2]]
    assert second["rooms"][rooms[3]]["initial"]
    assert (await phone.sync(lists={"all": top(1)}))["rooms"] == {}
    third = await phone.sync(lists={"all": top(50)})
    assert list(third["rooms"]) == [rooms[1], rooms[0]]


async def test_what_happened_out_of_sight_is_told_when_it_comes_into_sight(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    one, two = [await server.world.public_room(alice) for _ in range(2)]
    await phone.sync(lists={"all": top(5)})
    await one.send(alice, "early")
    await two.send(alice, "late")
    narrow = await phone.sync(lists={"all": top(0)})
    assert {room_id: bodies(room) for room_id, room in narrow["rooms"].items()} == {two.room_id: ["late"]}
    assert (await phone.sync(lists={"all": top(0)}))["rooms"] == {}
    wide = await phone.sync(lists={"all": top(5)})
    assert {room_id: bodies(room) for room_id, room in wide["rooms"].items()} == {one.room_id: ["early"]}
    assert "initial" not in wide["rooms"][one.room_id]


async def test_a_room_that_slides_into_the_middle_of_a_range_is_told(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    rooms = [await server.world.public_room(alice) for _ in range(5)]
    window = top() | {"ranges": [[2, 3]]}
    assert list((await phone.sync(lists={"all": window}))["rooms"]) == [rooms[2].room_id, rooms[1].room_id]
    await rooms[0].send(alice, "up")
    assert list((await phone.sync(lists={"all": window}))["rooms"]) == [rooms[3].room_id]
    await rooms[4].leave(alice)
    assert list((await phone.sync(lists={"all": window}))["rooms"]) == []
    await rooms[0].send(alice, "on top already")
    assert (await phone.sync(lists={"all": window}))["rooms"] == {}


async def test_a_request_waits_and_is_woken(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    room = await server.world.public_room(alice)
    await room.join(bob)
    await phone.sync(lists={"all": top()})
    waiting = phone.wait(lists={"all": top()})
    await asyncio.sleep(0)
    assert not waiting.done()
    await room.send(alice, "wake up")
    response = await asyncio.wait_for(waiting, 30)
    assert bodies(response["rooms"][room.room_id]) == ["wake up"]


async def test_news_out_of_sight_does_not_end_the_waiting(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    rooms = [await server.world.public_room(alice) for _ in range(3)]
    subscribed = {rooms[0].room_id: {"timeline_limit": 5, "required_state": []}}
    assert list((await phone.sync(room_subscriptions=subscribed))["rooms"]) == [rooms[0].room_id]
    waiting = phone.wait(room_subscriptions=subscribed)
    await asyncio.sleep(0)
    await rooms[1].send(alice, "not looked at")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    await rooms[0].send(alice, "looked at")
    response = await asyncio.wait_for(waiting, 30)
    assert {room_id: bodies(room) for room_id, room in response["rooms"].items()} == {
        rooms[0].room_id: ["looked at"]
    }


async def test_an_invite_is_told_and_then_the_room(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    room = await server.world.private_room(alice, name="Secret")
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}
    await room.invite(alice, bob)
    response = await phone.sync(lists={"all": top()})
    assert response["lists"]["all"]["count"] == 1
    told = response["rooms"][room.room_id]
    assert told["initial"]
    assert told["timeline"] == []
    assert "joined_count" not in told
    contents = {event["type"]: event["content"] for event in told["invite_state"]}
    assert contents["m.room.name"] == {"name": "Secret"}
    assert contents["m.room.member"]["membership"] == "invite"
    await room.join(bob)
    told = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert told["initial"]
    assert "invite_state" not in told
    assert told["joined_count"] == 2
    assert ("m.room.create", "") in state_of(told)


async def test_leaving_is_told_once_to_who_knew_the_room(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    sliding = sliding_of(server)
    phone, tablet = SlidingClient(sliding, bob), SlidingClient(sliding, bob, device="TABLET")
    room = await server.world.public_room(alice)
    await room.join(bob)
    await phone.sync(lists={"all": top()})
    await room.leave(bob)
    await room.send(alice, "after you left")
    response = await phone.sync(lists={"all": top()})
    told = response["rooms"][room.room_id]
    assert [event["content"]["membership"] for event in told["timeline"]] == ["leave"]
    assert members(told["required_state"]) == {bob}
    assert response["lists"]["all"]["count"] == 0
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}
    assert (await tablet.sync(lists={"all": top()}))["rooms"] == {}


async def test_who_was_sent_away_is_told_of_it_whenever_they_come(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    kicked, banned, never = [await server.world.public_room(alice) for _ in range(3)]
    for room in (kicked, banned):
        await room.join(bob)
    await kicked.set_state(alice, "m.room.member", {"membership": "leave"}, state_key=bob)
    for room in (banned, never):
        await room.set_state(alice, "m.room.member", {"membership": "ban"}, state_key=bob)
    await banned.send(alice, "they are gone")
    response = await phone.sync(lists={"all": top()})
    assert response["lists"]["all"]["count"] == 2
    told = {
        room_id: [event["content"]["membership"] for event in room["timeline"]]
        for room_id, room in response["rooms"].items()
    }
    assert told == {banned.room_id: ["ban"], kicked.room_id: ["leave"]}
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}


async def test_more_events_are_told_when_more_are_asked_for(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    for number in range(5):
        await room.send(alice, str(number))
    assert bodies((await phone.sync(lists={"all": top()}))["rooms"][room.room_id]) == ["4"]
    subscribed = {room.room_id: {"timeline_limit": 3, "required_state": [["m.room.topic", ""]]}}
    told = (await phone.sync(lists={"all": top()}, room_subscriptions=subscribed))["rooms"][room.room_id]
    assert bodies(told) == ["2", "3", "4"]
    assert told["unstable_expanded_timeline"]
    assert told["limited"]
    assert told["num_live"] == 0
    assert "initial" not in told
    again = await phone.sync(lists={"all": top()}, room_subscriptions=subscribed)
    assert again["rooms"] == {}
    await room.send(alice, "5")
    told = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert bodies(told) == ["5"]
    assert "unstable_expanded_timeline" not in told
    assert (await phone.sync(lists={"all": top()}, room_subscriptions=subscribed))["rooms"] == {}


async def test_an_expanded_timeline_is_limited_though_it_has_all_there_is(server: SyncServer) -> None:
    """Else matrix-js-sdk appends the older events to those it has."""
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await phone.sync(lists={"all": top()})
    told = (await phone.sync(lists={"all": top(limit=50)}))["rooms"][room.room_id]
    assert told["timeline"][0]["type"] == "m.room.create"
    assert (told["unstable_expanded_timeline"], told["limited"]) == (True, True)
    assert (await phone.sync(lists={"all": top(limit=50)}))["rooms"] == {}


async def test_more_is_told_of_a_room_one_was_sent_away_from(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    room = await server.world.public_room(alice, topic="Leaves")
    await room.join(bob)
    for number in range(3):
        await room.send(alice, str(number))
    await room.set_state(alice, "m.room.member", {"membership": "leave"}, state_key=bob)
    await room.send(alice, "they are gone")
    await room.set_state(alice, "m.room.topic", {"topic": "Gossip"})
    little = {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": [["m.room.create", ""]]}
    first = (await phone.sync(lists={"all": little}))["rooms"][room.room_id]
    assert state_of(first) == {("m.room.create", "")}

    more = {**little, "timeline_limit": 3, "required_state": [["m.room.topic", ""]]}
    told = (await phone.sync(lists={"all": more}))["rooms"][room.room_id]

    assert "initial" not in told
    assert bodies(told) == ["1", "2"]
    assert told["timeline"][-1]["content"] == {"membership": "leave"}
    assert [event["content"]["topic"] for event in told["required_state"]] == ["Leaves"]
    assert (await phone.sync(lists={"all": more}))["rooms"] == {}
    await room.invite(alice, bob)
    await room.join(bob)
    told = (await phone.sync(lists={"all": more}))["rooms"][room.room_id]
    assert told["initial"]
    assert [event["content"]["topic"] for event in told["required_state"]] == ["Gossip"]


async def test_a_forgotten_room_cannot_be_subscribed_to(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    room = await server.world.public_room(alice)
    await room.join(bob)
    await room.leave(bob)
    subscribed = {room.room_id: {"timeline_limit": 10, "required_state": [["*", "*"]]}}
    sliding = sliding_of(server)
    phone, tablet = SlidingClient(sliding, bob), SlidingClient(sliding, bob, device="TABLET")
    assert list((await phone.sync(room_subscriptions=subscribed))["rooms"]) == [room.room_id]

    await server.world.membership.forget(bob, room.room_id)

    assert (await tablet.sync(room_subscriptions=subscribed))["rooms"] == {}
    await room.join(bob)
    assert list((await tablet.sync(room_subscriptions=subscribed))["rooms"]) == [room.room_id]


async def test_more_state_is_told_when_more_is_asked_for(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice, topic="Leaves")
    little = {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": [["m.room.create", ""]]}
    first = (await phone.sync(lists={"all": little}))["rooms"][room.room_id]
    assert state_of(first) == {("m.room.create", "")}
    more = little | {"required_state": [["m.room.create", ""], ["m.room.topic", "*"]]}
    told = (await phone.sync(lists={"all": more}))["rooms"][room.room_id]
    assert state_of(told) == {("m.room.topic", "")}
    assert told["timeline"] == []
    assert (await phone.sync(lists={"all": more}))["rooms"] == {}


async def test_a_gap_is_limited_and_its_state_is_told(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    room = await server.world.public_room(alice)
    await room.join(bob)
    await phone.sync(lists={"all": top(limit=2)})
    await room.set_state(alice, "m.room.topic", {"topic": "Missed"})
    for number in range(5):
        await room.send(alice, str(number))
    told = (await phone.sync(lists={"all": top(limit=2)}))["rooms"][room.room_id]
    assert bodies(told) == ["3", "4"]
    assert told["limited"]
    assert told["num_live"] == 2
    assert told["prev_batch"]
    assert state_of(told) == {("m.room.topic", ""), ("m.room.member", alice)}


async def test_members_come_with_what_they_say_and_only_once(server: SyncServer) -> None:
    alice, bob, carol = (server.world.user(name) for name in ("alice", "bob", "carol"))
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    for user_id in (bob, carol):
        await room.join(user_id)
    await room.send(alice, "first")
    first = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert members(first["required_state"]) == {alice}
    await room.send(bob, "one")
    told = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert members(told["required_state"]) == {bob}
    await room.send(bob, "two")
    told = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert told["required_state"] == []
    await room.leave(carol)
    told = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert members(told["required_state"]) == {carol}
    assert told["joined_count"] == 2
    assert {hero["user_id"] for hero in told["heroes"]} == {bob}


async def test_a_repeated_request_is_answered_again(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await phone.sync(lists={"all": top()})
    before = phone.pos
    await room.send(alice, "one")
    lost = await phone.ask(pos=before, lists={"all": top()})
    again = await phone.ask(pos=before, lists={"all": top(limit=5)})
    assert bodies(lost["rooms"][room.room_id]) == bodies(again["rooms"][room.room_id])[-1:] == ["one"]
    await room.send(alice, "two")
    third = await phone.ask(pos=again["pos"], lists={"all": top(limit=5)})
    assert bodies(third["rooms"][room.room_id]) == ["two"]
    with pytest.raises(MatrixError) as refused:
        await phone.ask(pos=before, lists={"all": top()})
    assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN_POS")


async def test_a_position_is_of_one_device_and_one_connection_and_one_run_of_the_server(
    server: SyncServer,
) -> None:
    alice, mallory = server.world.user("alice"), server.world.user("mallory")
    sliding = sliding_of(server)
    phone = SlidingClient(sliding, alice)
    await server.world.public_room(alice)
    await phone.sync(lists={"all": top()})
    strangers = [
        SlidingClient(sliding, mallory),
        SlidingClient(sliding, alice, device="TABLET"),
        SlidingClient(sliding, alice, conn_id="other"),
        SlidingClient(sliding_of(server), alice),
    ]
    for stranger in strangers:
        with pytest.raises(MatrixError) as refused:
            await stranger.ask(pos=phone.pos, lists={"all": top()})
        assert refused.value.errcode == "M_UNKNOWN_POS"
    for broken in ("", "x", "s1_1_1", f"{phone.pos}9", f"{phone.pos}x", "s1_1_1~a.9"):
        with pytest.raises(MatrixError) as refused:
            await phone.ask(pos=broken, lists={"all": top()})
        assert refused.value.errcode == "M_UNKNOWN_POS"
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}


async def test_a_newer_request_ends_the_waiting_of_the_older_one(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await phone.sync(lists={"all": top()})
    pos = phone.pos
    older = phone.wait(lists={"all": top()})
    await asyncio.sleep(0)
    newer = asyncio.ensure_future(phone.ask(pos=pos, timeout=60, lists={"all": top(50)}))
    given_up = await asyncio.wait_for(older, 30)
    assert (given_up["pos"], given_up["rooms"]) == (pos, {})
    await room.send(alice, "to the newer one")
    told = await asyncio.wait_for(newer, 30)
    assert bodies(told["rooms"][room.room_id]) == ["to the newer one"]


async def test_connections_of_one_device_do_not_know_of_each_other(server: SyncServer) -> None:
    alice = server.world.user("alice")
    sliding = sliding_of(server)
    rooms, keys = (SlidingClient(sliding, alice, conn_id=name) for name in ("room-list", "encryption"))
    room = await server.world.public_room(alice)
    assert list((await rooms.sync(lists={"all": top()}))["rooms"]) == [room.room_id]
    assert (await keys.sync())["rooms"] == {}
    assert list((await keys.sync(lists={"all": top()}))["rooms"]) == [room.room_id]
    assert (await rooms.sync(lists={"all": top()}))["rooms"] == {}


async def test_a_device_has_few_connections_and_the_oldest_goes(server: SyncServer) -> None:
    sliding, alice = sliding_of(server), server.world.user("alice")
    devices = [SlidingClient(sliding, alice, conn_id=str(number)) for number in range(11)]
    for one in devices:
        await one.sync()
    with pytest.raises(MatrixError) as refused:
        await devices[0].sync()
    assert refused.value.errcode == "M_UNKNOWN_POS"
    assert (await devices[1].sync())["rooms"] == {}


async def test_an_unused_connection_is_forgotten(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    await phone.sync(lists={"all": top()})
    server.world.clock.advance(13 * 3600)
    with pytest.raises(MatrixError) as refused:
        await phone.sync(lists={"all": top()})
    assert refused.value.errcode == "M_UNKNOWN_POS"


async def test_ignored_people_are_not_heard(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await room.join(bob)
    await server.account_data.set_content(alice, "m.ignored_user_list", {"ignored_users": {bob: {}}})
    await phone.sync(lists={"all": top()})
    await room.send(bob, "can you hear me")
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}
    await room.send(alice, "no")
    assert bodies((await phone.sync(lists={"all": top()}))["rooms"][room.room_id]) == ["no"]


async def test_history_from_before_one_came_is_not_shown(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), bob)
    room = await server.world.public_room(alice)
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "joined"})
    await room.send(alice, "before")
    await room.join(bob)
    await room.send(alice, "after")
    told = (await phone.sync(lists={"all": top(limit=20)}))["rooms"][room.room_id]
    assert bodies(told) == ["after"]


async def test_rooms_one_may_not_see_cannot_be_subscribed_to(server: SyncServer) -> None:
    alice, mallory = server.world.user("alice"), server.world.user("mallory")
    phone = SlidingClient(sliding_of(server), mallory)
    room = await server.world.public_room(alice)
    asked = {"timeline_limit": 10, "required_state": [["*", "*"]]}
    subscribed = {room.room_id: asked, "!nowhere:example.org": asked, "nonsense": asked}
    assert (await phone.sync(room_subscriptions=subscribed))["rooms"] == {}


async def test_what_is_read_is_no_more_counted_as_unread(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await room.join(bob)
    sent = await room.send(bob, "hello")
    first = (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]
    assert (first["notification_count"], first["highlight_count"]) == (1, 0)
    waiting = phone.wait(lists={"all": top()})
    await asyncio.sleep(0)
    await server.receipts.read(alice, room.room_id, "m.read", sent.id)
    told = (await asyncio.wait_for(waiting, 60))["rooms"][room.room_id]
    assert (told["notification_count"], told["timeline"]) == (0, [])
    await server.receipts.read(bob, room.room_id, "m.read", sent.id)
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}


async def test_connections_that_remember_too_much_go_first(
    server: SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_ROOMS", 3)
    alice = server.world.user("alice")
    sliding = sliding_of(server)
    for _ in range(2):
        await server.world.public_room(alice)
    old, new = (SlidingClient(sliding, alice, conn_id=name) for name in ("old", "new"))
    for phone in (old, new):
        await phone.sync(lists={"all": top()})
        await phone.sync(lists={"all": top()})
    with pytest.raises(MatrixError) as refused:
        await old.sync(lists={"all": top()})
    assert refused.value.errcode == "M_UNKNOWN_POS"
    assert (await new.sync(lists={"all": top()}))["rooms"] == {}
