"""Rooms of ours that another homeserver's users join: what it is given, and what it may not do."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import aiohttp
import nacl.signing
import pytest

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.events import Event
from homeserver.protocol.signing import content_hash_matches, decode_base64
from tests.conformance.conftest import Register
from tests.conformance.outsider import V1, Outsider
from tests.conformance.outsider_room import OutsiderRoom
from tests.interop.client import Client, Refused
from tests.processes import Authority, Server

VERSIONS = ["10", "11", "12"]


async def shared_room(
    outsider: Outsider, alice: Client, version: str = "12", **fields: Any
) -> tuple[OutsiderRoom, str]:
    """A room of alice's that charlie has joined; and charlie."""
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room_id = await alice.create_room(**{"preset": "public_chat", "room_version": version, **fields})
    return await outsider.join(room_id, charlie), charlie


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_is_banned_does_not_come_in_with_anothers_template(
    outsider: Outsider, register: Register, version: str
) -> None:
    alice = await register("alice")
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room_id = await alice.create_room(preset="public_chat", room_version=version)
    await alice.set_state(room_id, "m.room.member", {"membership": "ban"}, charlie)

    rules, made = await outsider.make_membership("join", room_id, outsider.user("charlie2"))
    join = outsider.signed(rules, {**made, "sender": charlie, "state_key": charlie})
    status, answer = await outsider.hand_in("v2/send_join", join)

    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    assert (await alice.state_content(room_id, "m.room.member", charlie))["membership"] == "ban"


@pytest.mark.parametrize(
    ("endpoint", "membership"),
    [
        ("v1/send_join", "join"),
        ("v2/send_join", "join"),
        ("v1/send_leave", "leave"),
        ("v2/send_leave", "leave"),
        ("v1/send_knock", "knock"),
    ],
)
async def test_memberships_are_handed_in_where_they_belong(
    outsider: Outsider, register: Register, endpoint: str, membership: str
) -> None:
    alice = await register("alice")
    room, charlie = await shared_room(outsider, alice)
    wrong = [
        outsider.event(room, "m.room.message", {"body": "bzz"}, sender=charlie),
        outsider.event(room, "m.room.member", {"body": "bzz"}, sender=charlie),
        *(
            outsider.event(room, "m.room.member", {"membership": other}, sender=charlie, state_key=charlie)
            for other in ("join", "leave", "knock", "invite")
            if other != membership
        ),
        outsider.event(
            room,
            "m.room.member",
            {"membership": membership},
            sender=charlie,
            state_key=outsider.user("doris"),
        ),
    ]
    for event in wrong:
        status, answer = await outsider.hand_in(endpoint, event)
        assert status == 400, (event.type, event.content, answer)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_auth_chain_is_all_of_it_and_nothing_else(
    outsider: Outsider, register: Register, version: str
) -> None:
    alice = await register("alice")
    room, charlie = await shared_room(outsider, alice, version)
    first = room.event("m.room.member", charlie)
    leave = outsider.event(room, "m.room.member", {"membership": "leave"}, sender=charlie, state_key=charlie)
    assert (await outsider.hand_in("v2/send_leave", leave))[0] == 200
    room = await outsider.join(room.room_id, charlie)
    second = room.tip
    rules = await outsider.hears(
        room, await alice.set_state(room.room_id, "m.room.join_rules", {"join_rule": "invite"})
    )

    create = room.event("m.room.create").event_id
    assert await auth_chain(outsider, room, rules) == {create, *rules.auth_events}
    assert await auth_chain(outsider, room, second) == {
        create,
        *second.auth_events,
        first.event_id,
        leave.event_id,
        room.event("m.room.member", alice.user_id).event_id,
    }


async def auth_chain(outsider: Outsider, room: OutsiderRoom, event: Event) -> set[str]:
    """The ids that ``/event_auth`` names for an event, each once."""
    place = f"{quote(room.room_id, safe='')}/{quote(event.event_id, safe='')}"
    status, answer = await outsider.ask("GET", f"{V1}/event_auth/{place}")
    assert status == 200, answer
    chain = [outsider.parsed(room, pdu).event_id for pdu in answer["auth_chain"]]
    assert len(chain) == len(set(chain))
    return set(chain)


@pytest.mark.parametrize("visibility", ["world_readable", "shared", "invited", "joined"])
@pytest.mark.parametrize("version", ["10", "12"])
async def test_missing_events_are_shown_as_far_as_history_is(
    outsider: Outsider, register: Register, version: str, visibility: str
) -> None:
    alice = await register("alice")
    outsider.answers_transactions()
    room_id = await alice.create_room(preset="public_chat", room_version=version)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": visibility})
    await alice.say(room_id, "1")
    room = await outsider.join(room_id, outsider.user("charlie"))

    wanted = {
        "earliest_events": [room.event("m.room.create").event_id],
        "latest_events": [room.tip.event_id],
        "limit": 10,
        "min_depth": 1,
    }
    # The room id is not percent-encoded here: it need not be.
    status, answer = await outsider.ask("POST", f"{V1}/get_missing_events/{room_id}", wanted)

    assert status == 200, answer
    events = [pdu["type"].removeprefix("m.room.") for pdu in answer["events"]]
    again = [] if visibility == "shared" else ["history_visibility"]
    assert events == [
        "member", "power_levels", "join_rules", "history_visibility", *again, "message"
    ]  # fmt: skip
    message = answer["events"][-1]
    hidden = visibility in ("invited", "joined")
    assert (message["content"] == {}, content_hash_matches(message)) == (hidden, not hidden)


async def test_what_rests_on_a_rejected_event_is_rejected(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    outsider.answers_events()
    room, charlie = await shared_room(outsider, alice, "11")
    joined = room.event("m.room.member", charlie)
    create, rules, levels = (
        room.event(type_) for type_ in ("m.room.create", "m.room.join_rules", "m.room.power_levels")
    )
    rejected = outsider.event(room, "m.room.power_levels", {"users": {}}, sender=charlie, state_key="")
    await outsider.send(rejected)
    again = {"membership": "join", "test": 1}
    outlier = outsider.event(
        room,
        "m.room.member",
        again,
        sender=charlie,
        state_key=charlie,
        auth=[create, rules, rejected, joined],
    )
    room.learn([outlier])
    cited = [create, rules, levels, joined, outlier]
    first = outsider.say(room, charlie, "1", auth=cited)
    second = outsider.say(room, charlie, "2", auth=cited, prev=[first])
    sentinel = outsider.say(room, charlie, "sentinel", prev=[second])
    # The chain of the second is not to be had.
    chains = {first.event_id: {"auth_chain": [event.pdu for event in cited]}}
    outsider.answers(
        "GET",
        f"{V1}/event_auth/{{room}}/{{event}}",
        lambda asked: (200, chains[asked.params["event"]]) if asked.params["event"] in chains else (404, {}),
    )

    await outsider.send(first, second, sentinel)

    await alice.hears(room.room_id, sentinel.event_id)
    for event in (outlier, first, second):
        with pytest.raises(Refused) as refused:
            await alice.event(room.room_id, event.event_id)
        assert refused.value.status == 404


async def test_an_event_in_another_versions_format_harms_no_transaction(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await shared_room(outsider, alice, "10")
    event = outsider.say(room, charlie, "as if it were version 1")
    pairs = [[prev, {"sha256": "abase64encodedsha256hashshouldbe43byteslong"}] for prev in event.prev_events]
    body = {
        "origin": outsider.name,
        "origin_server_ts": 1,
        "pdus": [{**event.pdu, "event_id": event.event_id, "prev_events": pairs}],
        "edus": None,
    }
    status, answer = await outsider.ask("PUT", f"{V1}/send/invalid", body)
    assert status == 200
    # Under the id that its sender knows it by.
    assert list(answer["pdus"]) == [event.event_id]
    assert answer["pdus"][event.event_id]["error"]


async def test_a_transaction_of_edus_alone(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    room, charlie = await shared_room(outsider, alice)
    typing = {"room_id": room.room_id, "user_id": charlie, "typing": True}
    assert await outsider.send(edus=[{"edu_type": "m.typing", "content": typing}]) == {}
    await alice.until("typing", lambda view: charlie in view.typing.get(room.room_id, ()))


async def test_profiles_are_given_to_other_servers(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    await alice.set_displayname("Alice Cooper")
    query = f"{V1}/query/profile?user_id={alice.user_id}&field=displayname"
    assert await outsider.ask("GET", query) == (200, {"displayname": "Alice Cooper"})
    status, _ = await outsider.ask(
        "GET", f"{V1}/query/profile?user_id=@user1:localhost:http&field=displayname"
    )
    assert status == 400


async def test_our_keys_are_signed_byte_for_byte(
    server: Server, authority: Authority, http: aiohttp.ClientSession, outsider: Outsider
) -> None:
    """A checker may take the signatures out of the answer and verify what is left as it stands."""
    async with http.get(f"https://{server.server_name}/_matrix/key/v2/server", ssl=outsider.tls) as reply:
        raw = await reply.read()
    answer = json.loads(raw)
    assert answer["server_name"] == server.server_name
    assert set(answer["signatures"]) == {server.server_name}
    left = re.sub(rb'"signatures":\{.*?\}\},', b"", raw)
    assert json.loads(left) == {name: value for name, value in answer.items() if name != "signatures"}
    for key_id, signature in answer["signatures"][server.server_name].items():
        key = nacl.signing.VerifyKey(decode_base64(answer["verify_keys"][key_id]["key"]))
        key.verify(left, decode_base64(signature))
    assert raw == encode(answer)


async def test_since_v12_no_event_cites_the_create_event(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    room, _ = await shared_room(outsider, alice)
    create = room.event("m.room.create")
    assert room.room_id == f"!{create.event_id[1:]}"
    assert "room_id" not in create.pdu
    await outsider.hears(room, await alice.say(room.room_id, "hello"))
    for event in room.known.values():
        assert create.event_id not in event.auth_events
        assert event.room_id == room.room_id


async def test_power_over_100_is_less_than_a_creators(outsider: Outsider, register: Register) -> None:
    """Of two rules set at the same time the less powerful one's comes last, and stays."""
    alice = await register("alice")
    room, charlie = await shared_room(outsider, alice)
    levels = await alice.set_state(room.room_id, "m.room.power_levels", {"users": {charlie: 9_493_420}})
    parent = await outsider.hears(room, levels)
    await alice.set_state(room.room_id, "m.room.join_rules", {"join_rule": "invite"})
    theirs = outsider.event(
        room,
        "m.room.join_rules",
        {"join_rule": "knock"},
        sender=charlie,
        state_key="",
        prev=[parent],
        auth=[parent, room.event("m.room.member", charlie)],
    )
    assert await outsider.send(theirs) == {theirs.event_id: {}}
    await alice.hears(room.room_id, theirs.event_id)
    assert await alice.state_content(room.room_id, "m.room.join_rules") == {"join_rule": "knock"}


async def test_an_invitation_and_its_rejection_are_told_to_everybody_in_the_room(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    outsider.answers_invites()
    room, _ = await shared_room(outsider, alice, preset="public_chat")
    eve = outsider.user("eve")
    await alice.invite(room.room_id, eve)
    assert [invite.state_key for invite in outsider.invites] == [eve]
    await outsider.until("the invite", lambda: room.membership(eve) == "invite")

    rules, made = await outsider.make_membership("leave", room.room_id, eve)
    status, _ = await outsider.hand_in("v2/send_leave", outsider.signed(rules, made))
    assert status == 200
    await alice.sees_membership(room.room_id, eve, "leave")


async def test_who_knocks_is_seen_and_may_be_let_in(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    outsider.answers_invites()
    outsider.answers_transactions()
    david = outsider.user("david")
    room_id = await alice.create_room(preset="private_chat", room_version="7")
    versions = "&".join(f"ver={version}" for version in ("7", "8", "9"))
    place = f"{quote(room_id, safe='')}/{quote(david, safe='')}"
    assert (await outsider.ask("GET", f"{V1}/make_knock/{place}?{versions}"))[0] == 403
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    assert (await outsider.ask("GET", f"{V1}/make_join/{place}?{versions}"))[0] == 403

    rules, made = await outsider.make_membership("knock", room_id, david)
    knock = outsider.signed(rules, {**made, "content": {**made["content"], "reason": "let me in"}})
    status, answer = await outsider.hand_in("v1/send_knock", knock)
    assert status == 200
    assert "m.room.join_rules" in {event["type"] for event in answer["knock_room_state"]}
    seen = await alice.sees_membership(room_id, david, "knock")
    assert seen["content"]["reason"] == "let me in"

    await alice.invite(room_id, david)
    assert (await outsider.ask("GET", f"{V1}/make_knock/{place}?{versions}"))[0] == 403
    await outsider.join(room_id, david)
    assert david in await alice.members(room_id)


async def test_one_who_joins_hears_of_what_was_said_meanwhile(outsider: Outsider, register: Register) -> None:
    """Of an event between make_join and send_join the joining server is told by one that builds on it."""
    alice = await register("alice")
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room_id = await alice.create_room(preset="public_chat", room_version="12")
    rules, made = await outsider.make_membership("join", room_id, charlie)
    said = await alice.say(room_id, "between make_join and send_join")
    room = outsider.rooms[room_id] = OutsiderRoom(rules, room_id)

    status, _ = await outsider.hand_in("v2/send_join", outsider.signed(rules, made))
    assert status == 200
    await outsider.until(
        "an event on top of it", lambda: any(said in each.prev_events for each in room.timeline)
    )
