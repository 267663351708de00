"""What /sync tells of comings and goings, gaps and presence, as conformance suites look at it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.conformance.conftest import Register
from tests.conformance.outsider import V1, Outsider
from tests.conformance.outsider_room import pdus
from tests.interop.client import Client, Refused

LEAVES = json.dumps({"room": {"include_leave": True}})


async def sync(person: Client, since: str | None = None, **query: Any) -> Any:
    """One reply that does not wait."""
    return await person.request("GET", "/sync", **({"since": since} if since else {}), **query)


async def test_a_gap_limits_the_timeline(outsider: Outsider, register: Register) -> None:
    """Of 50 events only the newest 10 are given: what came before the gap is not shown beside them."""
    alice = await register("alice")
    outsider.answers_transactions()
    outsider.answers_events()
    charlie = outsider.user("charlie")
    room_id = await alice.create_room(preset="public_chat")
    room = await outsider.join(room_id, charlie)
    limit = json.dumps({"room": {"timeline": {"limit": 20}}})
    since = (await sync(alice, filter=limit))["next_batch"]
    said = await alice.say(room_id, "Hi from Alice!")
    await outsider.hears(room, said)
    for number in range(50):
        room.add(outsider.say(room, charlie, str(number)))
    missed = room.timeline[-50:]
    last = outsider.say(room, charlie, "End")
    state = list(room.state.values())
    outsider.answers(
        "POST", f"{V1}/get_missing_events/{{room}}", lambda asked: (200, {"events": pdus(missed[-10:])})
    )
    outsider.answers(
        "GET",
        f"{V1}/state_ids/{{room}}",
        lambda asked: (
            200,
            {
                "pdu_ids": [event.event_id for event in state],
                "auth_chain_ids": [event.event_id for event in room.auth_chain(state)],
            },
        ),
    )
    assert await outsider.send(last) == {last.event_id: {}}
    await alice.hears(room_id, last.event_id)

    timeline = (await sync(alice, since, filter=limit))["rooms"]["join"][room_id]["timeline"]
    assert timeline["limited"] is True
    assert timeline["events"][-1]["event_id"] == last.event_id
    assert {event["sender"] for event in timeline["events"]} == {charlie}


async def test_a_token_may_point_at_a_redaction_of_nothing(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room = await outsider.join(await alice.create_room(preset="public_chat"), charlie)
    redaction = outsider.event(room, "m.room.redaction", {"redacts": "$12345"}, sender=charlie)
    room.add(redaction)
    assert await outsider.send(redaction) == {redaction.event_id: {}}
    since = (await sync(alice))["next_batch"]
    for number in range(11):
        room.add(outsider.say(room, charlie, str(number)))
    await outsider.send(*room.timeline[-11:])
    await alice.hears(room.room_id, room.tip.event_id)
    limit = json.dumps({"room": {"timeline": {"limit": 10}}})
    timeline = (await sync(alice, since, filter=limit))["rooms"]["join"][room.room_id]["timeline"]
    assert (timeline["limited"], timeline["events"][-1]["event_id"]) == (True, room.tip.event_id)


async def test_an_empty_timeline_of_a_room_that_was_left(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    await alice.set_state(room, "a.madeup.test.state", {"my_key": "before"})
    await bob.leave(room)
    await alice.set_state(room, "a.madeup.test.state", {"my_key": "after"})
    nothing = json.dumps({"room": {"timeline": {"limit": 0}, "include_leave": True}})
    left = (await sync(bob, filter=nothing))["rooms"]["leave"][room]
    assert left["timeline"]["events"] == []
    state = {(event["type"], event["state_key"]): event["content"] for event in left["state"]["events"]}
    assert state["a.madeup.test.state", ""] == {"my_key": "before"}
    assert state["m.room.member", bob.user_id]["membership"] == "leave"


@pytest.mark.parametrize("since_before", [False, True])
async def test_a_room_that_was_left_ends_with_the_leave(register: Register, since_before: bool) -> None:
    alice, bob = await register("alice"), await register("bob")
    kinds = ["m.room.message", "a.madeup.test.state"]
    wanted = json.dumps(
        {"room": {"timeline": {"types": kinds}, "state": {"types": kinds[1:]}, "include_leave": True}}
    )
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    since = (await sync(bob, filter=wanted))["next_batch"]
    await alice.say(room, "before")
    await alice.set_state(room, "a.madeup.test.state", {"my_key": "before"})
    await bob.leave(room)
    await alice.say(room, "after")
    left = (await sync(bob, since if since_before else None, filter=wanted))["rooms"]["leave"][room]
    assert left.get("state", {"events": []})["events"] == []
    assert [event["content"].get("body", "state") for event in left["timeline"]["events"]] == [
        "before",
        "state",
    ]


async def test_one_sees_oneself_leave_where_history_is_for_members(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await alice.create_room(preset="public_chat", initial_state=[visibility])
    await bob.join(room)
    since = (await sync(alice, filter=LEAVES))["next_batch"]
    await alice.leave(room)
    left = (await sync(alice, since, filter=LEAVES))["rooms"]["leave"][room]
    assert left.get("state", {"events": []})["events"] == []
    assert [event["content"] for event in left["timeline"]["events"]] == [{"membership": "leave"}]


async def test_a_forgotten_room_is_gone(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    with pytest.raises(Refused) as refused:
        await alice.forget(room)
    assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN")
    since = (await sync(alice))["next_batch"]
    await alice.leave(room)
    await alice.forget(room)
    await bob.say(room, "Hello world!")
    # The next sync tells of the leave alone, as the conformance suite has it and Synapse does.
    told = (await sync(alice, since, filter=LEAVES))["rooms"]["leave"][room]
    assert [event["content"].get("membership") for event in told["timeline"]["events"]] == ["leave"]
    assert room not in (await sync(alice, filter=LEAVES))["rooms"].get("leave", {})
    with pytest.raises(Refused) as refused:
        await alice.request("GET", f"/rooms/{room}/messages", dir="b")
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_who_joined_left_and_joined_is_in(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await bob.create_room(preset="public_chat")
    since = (await sync(alice))["next_batch"]
    await alice.join(room)
    await alice.leave(room)
    await alice.join(room)
    rooms = (await sync(alice, since))["rooms"]
    assert room in rooms["join"]
    assert room not in rooms.get("leave", {})


async def test_what_one_was_at_each_event_is_said(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(preset="public_chat")
    await alice.say(room, "prejoin")
    await bob.join(room)
    await alice.say(room, "postjoin")
    events = (await sync(bob))["rooms"]["join"][room]["timeline"]["events"]
    at = next(at for at, event in enumerate(events) if event.get("state_key") == bob.user_id)
    memberships = [event["unsigned"]["membership"] for event in events]
    assert memberships == ["leave"] * at + ["join"] * (len(events) - at)


async def test_presence_comes_with_the_room(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(preset="public_chat")
    await sync(alice)
    since = (await sync(bob))["next_batch"]
    await bob.join(room)
    shown = (await sync(bob, since, timeout=5000))["presence"]["events"]
    assert alice.user_id in {event["sender"] for event in shown}
    assert {event["type"] for event in shown} == {"m.presence"}


async def test_a_departed_room_stays_as_it_was(register: Register) -> None:
    alice, bob, charlie = [await register(name) for name in ("alice", "bob", "charlie")]
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await alice.create_room(preset="public_chat", initial_state=[visibility])
    await bob.join(room)
    await alice.set_state(room, "m.room.name", {"name": "N1"})
    said = [await alice.say(room, text) for text in ("M1", "M2")]
    await bob.leave(room)
    since = (await sync(bob))["next_batch"]
    await alice.set_state(room, "m.room.name", {"name": "N2"})
    await charlie.join(room)

    assert await bob.state_content(room, "m.room.name") == {"name": "N1"}
    assert await alice.state_content(room, "m.room.name") == {"name": "N2"}
    members = (await bob.request("GET", f"/rooms/{room}/members"))["chunk"]
    assert {event["state_key"]: event["content"]["membership"] for event in members} == {
        alice.user_id: "join",
        bob.user_id: "leave",
    }
    path = f"/rooms/{room}/messages"
    page = (await bob.request("GET", path, **{"dir": "b", "limit": 3, "from": since}))["chunk"]
    assert [event["event_id"] for event in page][1:] == said[::-1]
    assert page[0]["state_key"] == bob.user_id
    assert (await bob.request("GET", path, **{"dir": "f", "limit": 100, "from": since}))["chunk"] == []


async def test_messages_without_a_transaction(register: Register) -> None:
    alice = await register("alice")
    room = await alice.create_room(preset="public_chat")
    body = {"msgtype": "m.text", "body": "no transaction id"}
    sent = await alice.request("POST", f"/rooms/{room}/send/m.room.message", body)
    again = await alice.request("POST", f"/rooms/{room}/send/m.room.message", body)
    assert (await alice.event(room, sent["event_id"]))["content"] == body
    assert again["event_id"] != sent["event_id"]


async def test_a_room_that_does_not_exist_is_forbidden(register: Register) -> None:
    alice = await register("alice")
    with pytest.raises(Refused) as refused:
        await alice.request("GET", f"/rooms/{quote('!does-not-exist:localhost')}/messages", dir="b")
    assert refused.value.status == 403


async def test_members_have_a_name_and_a_picture_or_empty_texts(register: Register) -> None:
    alice = await register("alice")
    room = await alice.create_room(preset="public_chat")
    joined = (await alice.request("GET", f"/rooms/{room}/joined_members"))["joined"]
    assert joined == {alice.user_id: {"display_name": "", "avatar_url": ""}}


async def test_members_at_a_point_of_a_fork(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    outsider.answers_joins()
    outsider.answers_transactions()
    bob, charlie = outsider.user("bob"), outsider.user("charlie")
    room = outsider.room("12", bob)
    await alice.join(room.room_id, outsider.name)
    await outsider.hears(room, await alice.say(room.room_id, "E1"))
    join = outsider.event(room, "m.room.member", {"membership": "join"}, sender=charlie, state_key=charlie)
    for text in ("E2", "E3"):
        await alice.say(room.room_id, text)
    assert await outsider.send(join) == {join.event_id: {}}
    await alice.hears(room.room_id, join.event_id)
    synced = await sync(alice, filter=json.dumps({"room": {"timeline": {"limit": 1}}}))
    members = await alice.request("GET", f"/rooms/{room.room_id}/members", at=synced["next_batch"])
    assert {event["state_key"] for event in members["chunk"]} == {alice.user_id, bob, charlie}
