"""Sliding sync as it is proposed: what differs from the form that clients send today."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.rooms.send import Draft
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of, state_of

EVERYTHING: dict[str, Any] = {"include": [{}], "lazy_members": True}


def latest(last: int = 19, *, limit: int = 1, **fields: Any) -> dict[str, Any]:
    return {"range": [0, last], "timeline_limit": limit, "required_state": EVERYTHING, **fields}


@pytest.fixture
def alice(server: SyncServer) -> SlidingClient:
    return SlidingClient(sliding_of(server), server.world.user("alice"), stable=True)


async def test_a_room_says_its_membership_and_its_lists(server: SyncServer, alice: SlidingClient) -> None:
    room = await server.world.public_room(alice.user_id, name="Tea")
    asked = {"room_subscriptions": {room.room_id: {"timeline_limit": 1, "required_state": {}}}}
    response = await alice.sync(lists={"all": latest(), "invites": latest(filters={"is_invited": True})})
    told = response["rooms"][room.room_id]
    assert (told["membership"], told["lists"], told["initial"]) == ("join", ["all"], True)
    assert "notification_count" not in told
    assert "is_dm" not in told
    told = (await alice.ask(pos=None, **asked))["rooms"][room.room_id]
    assert "lists" not in told
    assert told["required_state"] == []
    assert response["lists"] == {"all": {"count": 1}, "invites": {"count": 0}}


async def test_a_list_without_a_range_is_of_all_rooms(server: SyncServer, alice: SlidingClient) -> None:
    rooms = [(await server.world.public_room(alice.user_id)).room_id for _ in range(4)]
    everything = {"timeline_limit": 1, "required_state": {}}
    assert list((await alice.sync(lists={"all": everything}))["rooms"]) == rooms[::-1]
    await server.world.public_room(alice.user_id)
    assert len((await alice.sync(lists={"all": everything}))["rooms"]) == 1


async def test_invites_come_with_stripped_state(server: SyncServer, alice: SlidingClient) -> None:
    bob = server.world.user("bob")
    room = await server.world.private_room(bob, name="Secret")
    await room.invite(bob, alice.user_id)
    told = (await alice.sync(lists={"all": latest()}))["rooms"][room.room_id]
    assert told["membership"] == "invite"
    assert told["initial"]
    assert {"timeline", "required_state", "invite_state"}.isdisjoint(told)
    assert {event["type"] for event in told["stripped_state"]} >= {"m.room.name", "m.room.member"}
    await room.leave(alice.user_id)
    told = (await alice.sync(lists={"all": latest()}))["rooms"][room.room_id]
    assert told["membership"] == "leave"
    assert [event["content"]["membership"] for event in told["stripped_state"]] == ["leave"]


async def test_a_name_that_is_removed_is_null(server: SyncServer, alice: SlidingClient) -> None:
    room = await server.world.public_room(alice.user_id, name="Tea")
    await alice.sync(lists={"all": latest()})
    await room.set_state(alice.user_id, "m.room.name", {})
    told = (await alice.sync(lists={"all": latest()}))["rooms"][room.room_id]
    assert told["name"] is None
    assert told["heroes"] == []


async def test_more_events_are_marked_as_expanded(server: SyncServer, alice: SlidingClient) -> None:
    room = await server.world.public_room(alice.user_id)
    await alice.sync(lists={"all": latest()})
    told = (await alice.sync(lists={"all": latest(limit=3)}))["rooms"][room.room_id]
    assert told["expanded_timeline"]
    assert len(told["timeline"]) == 3
    assert "unstable_expanded_timeline" not in told


async def test_state_can_be_excluded_and_asked_for_by_key_alone(
    server: SyncServer, alice: SlidingClient
) -> None:
    room = await server.world.public_room(alice.user_id, topic="Tea")
    await room.set_state(alice.user_id, "org.example.one", {}, state_key="key")

    async def told(**required: Any) -> set[tuple[str, str]]:
        wanted = {"timeline_limit": 0, "required_state": required}
        return state_of((await alice.ask(pos=None, lists={"all": wanted}))["rooms"][room.room_id])

    everything = await told(include=[{}])
    without = await told(include=[{}], exclude=[{"type": "m.room.create", "state_key": ""}])
    assert everything - without == {("m.room.create", "")}
    assert await told(include=[{"state_key": "key"}]) == {("org.example.one", "key")}
    assert await told(include=[{"type": "m.room.topic"}]) == {("m.room.topic", "")}
    assert everything - await told(include=[{}], lazy_members=True) == {("m.room.member", alice.user_id)}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"lists": {"a b": {"timeline_limit": 1}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "range": [1, 0]}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "range": [0]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": []}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": {"include": {}}}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": {"include": [{"type": 1}]}}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": {"lazy_members": 1}}}}, "M_BAD_JSON"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    alice: SlidingClient, body: dict[str, Any], errcode: str
) -> None:
    with pytest.raises(MatrixError) as refused:
        await alice.sync(**body)
    assert (refused.value.status, refused.value.errcode) == (400, errcode)


async def test_state_that_is_no_more_is_told_as_a_stub(server: SyncServer, alice: SlidingClient) -> None:
    bob = server.world.user("bob")
    room = await server.world.public_room(alice.user_id, version="10")
    await room.join(bob)
    powers = {"users": {alice.user_id: 100}, "state_default": 0}
    await room.set_state(alice.user_id, "m.room.power_levels", powers)
    fork = (await room.live()).tips
    await room.append_after(fork, Draft(bob, "org.example.thing", {"a": 1}, state_key="x"))
    first = (await alice.sync(lists={"all": latest()}))["rooms"][room.room_id]
    assert ("org.example.thing", "x") in state_of(first)
    ban = Draft(alice.user_id, "m.room.member", {"membership": "ban"}, state_key=bob)
    await room.append_after(fork, ban)
    told = (await alice.sync(lists={"all": latest()}))["rooms"][room.room_id]
    assert {"type": "org.example.thing", "state_key": "x"} in told["required_state"]
