"""What ``/sync`` tells, step by step."""

from __future__ import annotations

import asyncio

from homeserver.rooms.send import Draft
from homeserver.storage import events
from homeserver.storage.database import Database
from tests.sync.server import SyncServer, bodies, keys


async def test_a_first_sync_shows_the_rooms_one_is_in(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id, name="Tea")
    await room.send(alice.user_id, "hello")
    joined = (await alice.sync())["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["hello"]
    told = keys(joined) | {
        (event["type"], event["state_key"]) for event in joined["timeline"]["events"] if "state_key" in event
    }
    assert {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", alice.user_id)} <= told
    assert joined["summary"] == {"m.joined_member_count": 1, "m.invited_member_count": 0}


async def test_the_next_sync_shows_only_what_is_new(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await room.send(alice.user_id, "one")
    await bob.sync()
    assert (await bob.sync())["rooms"] == {}
    await room.send(alice.user_id, "two")
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["two"]
    assert joined["state"]["events"] == []
    assert not joined["timeline"]["limited"]
    assert joined["summary"] == {}


async def test_a_waiting_sync_is_woken_by_a_message(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    waiting = bob.wait()
    await asyncio.sleep(0)
    assert not waiting.done()
    await room.send(alice.user_id, "wake up")
    response = await asyncio.wait_for(waiting, 5)
    assert bodies(response["rooms"]["join"][room.room_id]) == ["wake up"]


async def test_a_waiting_sync_is_woken_by_an_invite_and_then_by_the_room(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.private_room(alice.user_id, name="Secret")
    await bob.sync()
    waiting = bob.wait()
    await asyncio.sleep(0)
    await room.invite(alice.user_id, bob.user_id)
    invite = (await asyncio.wait_for(waiting, 5))["rooms"]["invite"][room.room_id]
    told = {event["type"]: event["content"] for event in invite["invite_state"]["events"]}
    assert told["m.room.name"] == {"name": "Secret"}
    assert told["m.room.member"]["membership"] == "invite"
    waiting = bob.wait()
    await asyncio.sleep(0)
    await room.join(bob.user_id)
    joined = (await asyncio.wait_for(waiting, 5))["rooms"]["join"][room.room_id]
    assert ("m.room.create", "") in keys(joined) or joined["timeline"]["events"][0]["type"] == "m.room.create"
    waiting = bob.wait()
    await asyncio.sleep(0)
    await room.send(alice.user_id, "welcome")
    assert bodies((await asyncio.wait_for(waiting, 5))["rooms"]["join"][room.room_id]) == ["welcome"]


async def test_a_long_gap_is_limited_and_its_state_is_told(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    await room.set_state(alice.user_id, "m.room.topic", {"topic": "gap"})
    for number in range(12):
        await room.send(alice.user_id, str(number))
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert joined["timeline"]["limited"]
    assert bodies(joined) == [str(number) for number in range(2, 12)]
    assert keys(joined) == {("m.room.topic", "")}


async def test_state_in_the_timeline_is_not_told_twice(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    await alice.sync()
    await room.set_state(alice.user_id, "m.room.topic", {"topic": "new"})
    joined = (await alice.sync())["rooms"]["join"][room.room_id]
    assert [event["type"] for event in joined["timeline"]["events"]] == ["m.room.topic"]
    assert joined["state"]["events"] == []


async def test_state_after_tells_state_up_to_the_end_of_the_timeline(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    joined = (await alice.sync(use_state_after=True))["rooms"]["join"][room.room_id]
    assert "state" not in joined
    assert ("m.room.power_levels", "") in keys(joined, "state_after")
    await room.set_state(alice.user_id, "m.room.topic", {"topic": "new"})
    joined = (await alice.sync(use_state_after=True))["rooms"]["join"][room.room_id]
    assert keys(joined, "state_after") == {("m.room.topic", "")}


async def test_a_state_event_the_filter_keeps_out_of_the_timeline_is_told_as_state(
    server: SyncServer,
) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    messages_only = {"room": {"timeline": {"types": ["m.room.message"]}}}
    await alice.sync(filter=messages_only)
    await room.send(alice.user_id, "before")
    await room.set_state(alice.user_id, "m.room.topic", {"topic": "between"})
    await room.send(alice.user_id, "after")
    joined = (await alice.sync(filter=messages_only))["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["before", "after"]
    assert keys(joined) == {("m.room.topic", "")}


async def test_who_comes_back_is_not_shown_again_what_they_saw(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.private_room(alice.user_id)
    await room.send(alice.user_id, "before the invite")
    await room.invite(alice.user_id, bob.user_id)
    await bob.sync()
    await room.join(bob.user_id)
    assert bodies((await bob.sync())["rooms"]["join"][room.room_id]) == ["before the invite"]
    await room.send(alice.user_id, "seen")
    await bob.sync()
    await room.leave(bob.user_id)
    await bob.sync()
    await room.send(alice.user_id, "missed")
    await room.invite(alice.user_id, bob.user_id)
    await room.join(bob.user_id)
    section = (await bob.sync())["rooms"]["join"][room.room_id]
    assert bodies(section) == ["missed"]
    assert section["timeline"]["limited"]


async def test_a_left_room_is_shown_up_to_the_leaving(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    await room.send(alice.user_id, "before")
    await room.leave(bob.user_id)
    await room.send(alice.user_id, "after")
    response = await bob.sync()
    assert room.room_id not in response["rooms"].get("join", {})
    left = response["rooms"]["leave"][room.room_id]
    assert bodies(left) == ["before"]
    assert left["timeline"]["events"][-1]["content"]["membership"] == "leave"
    assert (await bob.sync())["rooms"] == {}


async def test_rooms_left_long_ago_are_shown_to_who_asks_for_them(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await room.leave(bob.user_id)
    assert (await bob.sync())["rooms"] == {}
    bob.token = None
    response = await bob.sync(filter={"room": {"include_leave": True}})
    assert set(response["rooms"]["leave"]) == {room.room_id}


async def test_a_rejected_invite_is_a_left_room_with_nothing_in_it(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.private_room(alice.user_id)
    await room.send(alice.user_id, "secret")
    await room.invite(alice.user_id, bob.user_id)
    await bob.sync()
    await room.leave(bob.user_id)
    left = (await bob.sync())["rooms"]["leave"][room.room_id]
    assert [event["type"] for event in left["timeline"]["events"]] == ["m.room.member"]
    assert left["state"]["events"] == []


async def test_a_room_joined_since_is_told_in_full(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.send(alice.user_id, "history")
    await bob.sync()
    await room.join(bob.user_id)
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert "history" in bodies(joined)
    assert joined["summary"]["m.joined_member_count"] == 2
    assert joined["summary"]["m.heroes"] == [alice.user_id]


async def test_a_room_joined_since_comes_with_what_was_kept_for_it_before(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await server.account_data.set_tag(bob.user_id, room.room_id, "u.later", {})
    await bob.sync()
    await room.join(bob.user_id)
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert joined["account_data"]["events"] == [{"type": "m.tag", "content": {"tags": {"u.later": {}}}}]


async def test_what_was_said_before_joining_is_hidden_where_history_is_for_members(
    server: SyncServer,
) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.set_state(alice.user_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await room.send(alice.user_id, "before")
    await room.join(bob.user_id)
    await room.send(alice.user_id, "after")
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["after"]


async def test_an_event_on_a_branch_from_before_the_joining_is_hidden_there_too(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.set_state(alice.user_id, "m.room.history_visibility", {"history_visibility": "joined"})
    before = await room.send(alice.user_id, "before")
    await room.join(bob.user_id)
    await bob.sync()
    message = {"msgtype": "m.text", "body": "late"}
    late = await room.append_after([before], Draft(alice.user_id, "m.room.message", message))
    later = await room.append_after(
        [late], Draft(alice.user_id, "m.room.topic", {"topic": "x"}, state_key="")
    )
    await room.append_after([later], Draft(alice.user_id, "m.room.message", message))
    await room.send(alice.user_id, "together")
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["together"]
    assert keys(joined) == {("m.room.topic", "")}


async def test_a_timeline_does_not_reach_over_a_gap(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    below = await room.send(alice.user_id, "below the gap")
    message = {"msgtype": "m.text", "body": "above it"}
    above = await room.append_after([below], Draft(alice.user_id, "m.room.message", message))
    nid, pos = (await room.live()).nid, above.pos or 0
    await server.world.db.write(lambda tx: events.add_missing(tx, nid, ["$missing"], pos))
    await room.send(alice.user_id, "newest")
    section = (await bob.sync())["rooms"]["join"][room.room_id]
    assert bodies(section) == ["above it", "newest"]
    assert section["timeline"]["limited"]
    assert section["timeline"]["prev_batch"].split("_")[1] == str(pos - 1)


async def test_a_changed_profile_does_not_make_a_room_new(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    content = {"membership": "join", "displayname": "Robert"}
    await room.set_state(bob.user_id, "m.room.member", content, state_key=bob.user_id)
    joined = (await bob.sync())["rooms"]["join"][room.room_id]
    assert [event["type"] for event in joined["timeline"]["events"]] == ["m.room.member"]
    assert joined["state"]["events"] == []


async def test_full_state_tells_the_state_and_only_new_events(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    await alice.sync()
    await room.send(alice.user_id, "new")
    joined = (await alice.sync(full_state=True))["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["new"]
    assert ("m.room.create", "") in keys(joined)


async def test_a_restart_changes_nothing_for_a_token(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    await alice.sync()
    await room.send(alice.user_id, "before the restart")
    alice.server = await SyncServer.open(sqlite_database)
    joined = (await alice.sync())["rooms"]["join"][room.room_id]
    assert bodies(joined) == ["before the restart"]
    assert (await alice.sync())["rooms"] == {}
    room.world = alice.server.world
    await room.send(alice.user_id, "after the restart")
    assert bodies((await alice.sync())["rooms"]["join"][room.room_id]) == ["after the restart"]


async def test_other_rooms_and_the_filter(server: SyncServer) -> None:
    alice = server.client("alice")
    wanted = await server.world.public_room(alice.user_id)
    other = await server.world.public_room(alice.user_id)
    response = await alice.sync(filter={"room": {"not_rooms": [other.room_id]}})
    assert set(response["rooms"]["join"]) == {wanted.room_id}
