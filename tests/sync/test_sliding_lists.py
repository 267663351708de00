"""Lists of sliding sync: which rooms pass their filters, and how they follow what changes."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.rooms.create import NewRoom
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, extended, sliding_of, top


def asked(filters: dict[str, Any], last: int = 19) -> dict[str, Any]:
    return {"lists": {"list": top(last, filters=filters)}}


async def names(phone: SlidingClient, filters: dict[str, Any]) -> tuple[set[str], int]:
    """The names of the rooms that pass filters, as a new connection sees them, and their number."""
    response = await phone.ask(pos=None, **asked(filters))
    return {room["name"] for room in response["rooms"].values()}, response["lists"]["list"]["count"]


async def test_rooms_are_chosen_by_what_they_are(server: SyncServer) -> None:
    world, alice = server.world, server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    space = await world.room(
        alice, NewRoom(name="Space", preset="public_chat", creation_content={"type": "m.space"})
    )
    plain, secret = [await world.public_room(alice, name=name) for name in ("Plain", "Secret")]
    await secret.set_state(alice, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await space.set_state(alice, "m.space.child", {"via": ["here.example"]}, state_key=plain.room_id)
    assert await names(phone, {"not_room_types": ["m.space"]}) == ({"Plain", "Secret"}, 2)
    assert await names(phone, {"room_types": ["m.space"]}) == ({"Space"}, 1)
    assert await names(phone, {"room_types": [None, "m.space"], "not_room_types": [None]}) == ({"Space"}, 1)
    assert await names(phone, {"is_encrypted": True}) == ({"Secret"}, 1)
    assert await names(phone, {"is_encrypted": False}) == ({"Plain", "Space"}, 2)
    assert await names(phone, {"spaces": [space.room_id, "!none:here.example"]}) == ({"Plain"}, 1)
    assert await names(phone, {"is_invite": True}) == (set(), 0)


async def test_rooms_are_chosen_by_what_the_user_says_of_them(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    one, two, three = [await server.world.public_room(alice, name=name) for name in ("One", "Two", "Three")]
    await server.account_data.set_content(alice, "m.direct", {"@bob:here.example": [one.room_id], "x": 5})
    await server.account_data.set_tag(alice, two.room_id, "m.favourite", {})
    await server.account_data.set_tag(alice, three.room_id, "m.favourite", {})
    await server.account_data.set_tag(alice, three.room_id, "m.lowpriority", {})
    assert await names(phone, {"is_dm": True}) == ({"One"}, 1)
    assert await names(phone, {"is_dm": False}) == ({"Two", "Three"}, 2)
    assert await names(phone, {"tags": ["m.favourite"]}) == ({"Two", "Three"}, 2)
    assert await names(phone, {"tags": ["m.favourite"], "not_tags": ["m.lowpriority"]}) == ({"Two"}, 1)


async def test_a_list_follows_what_its_filter_looks_at(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    rooms = [await server.world.public_room(alice, name=str(number)) for number in range(4)]
    favourites = asked({"tags": ["m.favourite"]})
    assert (await phone.sync(**favourites))["lists"]["list"]["count"] == 0
    await server.account_data.set_tag(alice, rooms[1].room_id, "m.favourite", {})
    response = await phone.sync(**favourites)
    assert (list(response["rooms"]), response["lists"]["list"]["count"]) == ([rooms[1].room_id], 1)
    await server.account_data.remove_tag(alice, rooms[1].room_id, "m.favourite")
    response = await phone.sync(**favourites)
    assert (response["rooms"], response["lists"]["list"]["count"]) == ({}, 0)


async def test_a_space_that_gains_a_room_shows_it(server: SyncServer) -> None:
    world, alice = server.world, server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    space = await world.room(alice, NewRoom(preset="public_chat", creation_content={"type": "m.space"}))
    room = await world.public_room(alice)
    inside = asked({"spaces": [space.room_id]})
    assert (await phone.sync(**inside))["rooms"] == {}
    await space.set_state(alice, "m.space.child", {"via": ["here.example"]}, state_key=room.room_id)
    assert list((await phone.sync(**inside))["rooms"]) == [room.room_id]
    await space.set_state(alice, "m.space.child", {}, state_key=room.room_id)
    await room.send(alice, "outside by now")
    assert (await phone.sync(**inside))["rooms"] == {}


async def test_a_room_that_becomes_encrypted_changes_lists(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    lists = {
        "open": top(filters={"is_encrypted": False}),
        "encrypted": top(filters={"is_encrypted": True}),
    }
    assert (await phone.sync(lists=lists))["lists"] == {"open": {"count": 1}, "encrypted": {"count": 0}}
    await room.set_state(alice, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    response = await phone.sync(lists=lists)
    assert response["lists"] == {"open": {"count": 0}, "encrypted": {"count": 1}}
    assert [event["type"] for event in response["rooms"][room.room_id]["timeline"]] == ["m.room.encryption"]


async def test_that_a_room_is_a_direct_chat_is_told_when_it_becomes_one(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    assert (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]["is_dm"] is False
    await server.account_data.set_content(alice, "m.direct", {"@bob:here.example": [room.room_id]})
    told = (await phone.sync(lists={"all": top()}))["rooms"]
    assert told[room.room_id]["is_dm"] is True
    assert told[room.room_id]["timeline"] == []
    await server.account_data.set_content(alice, "m.direct", {})
    assert (await phone.sync(lists={"all": top()}))["rooms"][room.room_id]["is_dm"] is False
    assert (await phone.sync(lists={"all": top()}))["rooms"] == {}


async def test_several_lists_and_a_subscription_want_the_most_of_a_room(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice, topic="All of it")
    for number in range(5):
        await room.send(alice, str(number))
    one = {"ranges": [[0, 5]], "timeline_limit": 2, "required_state": [["m.room.topic", ""]]}
    two = {"ranges": [[0, 5]], "timeline_limit": 1, "required_state": [["m.room.create", ""]]}
    three = {"timeline_limit": 4, "required_state": [["m.room.member", "$ME"]]}
    response = await phone.sync(lists={"one": one, "two": two}, room_subscriptions={room.room_id: three})
    told = response["rooms"][room.room_id]
    assert len(told["timeline"]) == 4
    assert {event["type"] for event in told["required_state"]} == {
        "m.room.topic",
        "m.room.create",
        "m.room.member",
    }


async def test_wildcards_mean_what_clients_think(server: SyncServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    phone = SlidingClient(sliding_of(server), alice)
    room = await server.world.public_room(alice)
    await room.join(bob)
    await room.set_state(alice, "org.example.widget", {"a": 1}, state_key="one")
    await room.send(alice, "hello")

    async def told(*required: list[str]) -> set[tuple[str, str]]:
        wanted = {"ranges": [[0, 5]], "timeline_limit": 1, "required_state": list(required)}
        response = await phone.ask(pos=None, lists={"list": wanted})
        state = response["rooms"][room.room_id]["required_state"]
        return {(event["type"], event["state_key"]) for event in state}

    everything = await told(["*", "*"])
    assert {("m.room.member", alice), ("m.room.member", bob), ("m.room.create", "")} < everything
    lazily = await told(["*", "*"], ["m.room.member", "$LAZY"])
    assert everything - lazily == {("m.room.member", bob)}
    assert await told(["org.example.widget", "*"]) == {("org.example.widget", "one")}
    assert await told(["*", "one"]) == {("org.example.widget", "one")}
    assert await told(["m.room.member", bob]) == {("m.room.member", bob)}
    assert await told(["m.room.member", "$ME"], ["m.room.member", "*"]) == {
        ("m.room.member", alice),
        ("m.room.member", bob),
    }
    assert await told() == set()


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"lists": []}, "M_BAD_JSON"),
        ({"lists": {"a": 1}}, "M_BAD_JSON"),
        ({"lists": {"a": {"ranges": [[0, 1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": -1}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": True}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "ranges": [[5, 1]]}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "ranges": [[-5, 1]]}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "ranges": [[1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "ranges": [[0, 1]] * 101}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [["a"]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [["a", 1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [["a", "b"]] * 1001}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "filters": {"is_dm": "yes"}}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "filters": {"tags": [1]}}}}, "M_BAD_JSON"),
        ({"lists": {str(name): {"timeline_limit": 1} for name in range(101)}}, "M_INVALID_PARAM"),
        ({"lists": {"a" * 256: {"timeline_limit": 1}}}, "M_INVALID_PARAM"),
        ({"room_subscriptions": {f"!{n}:x": {"timeline_limit": 1} for n in range(101)}}, "M_INVALID_PARAM"),
        ({"room_subscriptions": {"!a:x": {}}}, "M_BAD_JSON"),
        ({"extensions": {"typing": True}}, "M_BAD_JSON"),
        ({"extensions": {"typing": {"enabled": 1}}}, "M_BAD_JSON"),
    ],
)
async def test_what_makes_no_sense_is_refused(server: SyncServer, body: dict[str, Any], errcode: str) -> None:
    phone = SlidingClient(extended(server), server.world.user("alice"))
    with pytest.raises(MatrixError) as refused:
        await phone.sync(**body)
    assert (refused.value.status, refused.value.errcode) == (400, errcode)
