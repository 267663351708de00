"""Rooms that another homeserver made and our people join: what comes from there, and what is asked there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.conformance.conftest import Register
from tests.conformance.outsider import V1, V2, Answer, Asked, Outsider
from tests.conformance.outsider_room import OutsiderRoom, pdus
from tests.interop.client import Client, Refused

VERSIONS = ["5", "10", "11", "12"]
_WRONG = "/3z+pJjiJXWhwfqIEzmNksvBHCoXTktK/y0rRuWJXw6i1+ygRG/suDCKhFuuz6gPapRmEMPVILi2mJqHHXPKAg"


async def joined_room(
    outsider: Outsider, alice: Client, version: str = "12", levels: dict[str, Any] | None = None
) -> tuple[OutsiderRoom, str]:
    """A room of charlie's that alice has joined by its alias; and charlie."""
    outsider.answers_joins()
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room = outsider.room(version, charlie, levels)
    await alice.join(outsider.alias("flibble", room))
    return room, charlie


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_we_say_arrives_there_and_nothing_else(
    outsider: Outsider, register: Register, version: str
) -> None:
    alice = await register("alice")
    room, _ = await joined_room(outsider, alice, version)

    said = await alice.say(room.room_id, "Hello world!")

    await outsider.hears(room, said)
    assert [event.type for event in outsider.received] == ["m.room.message"]


async def test_a_server_that_does_not_know_the_room_is_not_the_last_to_be_asked(
    outsider: Outsider, register: Register
) -> None:
    alice, bob = await register("alice"), await register("bob")
    outsider.answers_joins()
    outsider.answers_transactions()
    room = outsider.room("12", outsider.user("charlie"))

    outsider.answers("GET", f"{V1}/make_join/{{room}}/{{user}}", lambda asked: (502, "out of order"))
    with pytest.raises(Refused) as refused:
        await alice.join(room.room_id, outsider.name)
    assert refused.value.status >= 400

    outsider.answers_joins()
    await alice.join(room.room_id, alice.user_id.partition(":")[2], outsider.name)
    outsider.answers("GET", f"{V1}/make_join/{{room}}/{{user}}", lambda asked: (502, "out of order"))
    # From now on the room is known here.
    await bob.join(room.room_id, outsider.name)


@pytest.mark.parametrize("broken", ["no signature", "a wrong signature", "an unknown key"])
async def test_state_that_cannot_be_verified_does_not_keep_us_out(
    outsider: Outsider, register: Register, broken: str
) -> None:
    alice = await register("alice")
    outsider.answers_joins()
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room = outsider.room("12", charlie)
    name = outsider.event(room, "m.room.name", {"name": broken}, sender=charlie, state_key="")
    room.add(with_signatures(name, broken, outsider))

    await alice.join(outsider.alias("unverifiable", room))

    assert ("m.room.name", "") not in await alice.state(room.room_id)


async def test_state_whose_auth_events_cannot_be_verified_does_not_keep_us_out(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    outsider.answers_joins()
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room = outsider.room("11", charlie)
    again = {"membership": "join", "name": "badly signed"}
    member = outsider.event(room, "m.room.member", again, sender=charlie, state_key=charlie)
    room.add(with_signatures(member, "a wrong signature", outsider))
    gone = outsider.event(room, "m.room.member", {"membership": "leave"}, sender=charlie, state_key=charlie)
    assert room.timeline[-1].event_id in gone.auth_events
    room.add(gone)

    await alice.join(outsider.alias("unverifiable-auth", room))

    assert await alice.members(room.room_id) == {alice.user_id}


def with_signatures(event: Event, broken: str, outsider: Outsider) -> Event:
    """The event with signatures that say nothing."""
    signatures = {
        "no signature": {},
        "a wrong signature": {outsider.name: {outsider.key.key_id: _WRONG}},
        "an unknown key": {outsider.name: {f"{outsider.key.key_id}bogus": _WRONG}},
    }[broken]
    pdu = {**event.pdu, "signatures": signatures}
    encoded = json.dumps(pdu, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    return Event(
        event_id=event.event_id,
        room_id=event.room_id,
        sender=event.sender,
        type=event.type,
        state_key=event.state_key,
        origin_server_ts=event.origin_server_ts,
        depth=event.depth,
        prev_events=event.prev_events,
        auth_events=event.auth_events,
        redacts=None,
        json=encoded,
    )


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_redaction_of_what_never_came_here_goes_out(
    outsider: Outsider, register: Register, version: str
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice, version, {"redact": 0})
    bad = outsider.say(room, charlie, "666")
    room.add(bad)

    sent = await alice.redact(room.room_id, f"{bad.event_id}:{outsider.name}", "reasons")

    redaction = await outsider.hears(room, sent)
    assert (redaction.type, redaction.redacts) == ("m.room.redaction", f"{bad.event_id}:{outsider.name}")


async def test_without_the_power_to_redact_nothing_unknown_is_redacted(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice)
    with pytest.raises(Refused) as refused:
        await alice.redact(room.room_id, outsider.say(room, charlie, "666").event_id)
    assert refused.value.status == 404


async def test_a_filter_does_not_hide_the_state_beside_what_it_leaves_out(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice)
    await outsider.hears(room, await alice.say(room.room_id, "E1"))
    named = outsider.event(room, "m.room.name", {"name": "S2"}, sender=charlie, state_key="")
    for body in ("E3", "E4"):
        await alice.say(room.room_id, body)
    assert await outsider.send(named) == {named.event_id: {}}
    await alice.hears(room.room_id, named.event_id)
    await alice.send(room.room_id, "please_filter_me", {"body": "E5"})

    wanted = {"room": {"timeline": {"not_types": ["please_filter_me"], "limit": 1}}}
    synced = await alice.request("GET", "/sync", filter=json.dumps(wanted))

    shown = synced["rooms"]["join"][room.room_id]
    events = shown["state"]["events"] + shown["timeline"]["events"]
    assert named.event_id in [event["event_id"] for event in events]


async def test_after_a_partition_what_sync_left_out_is_in_the_history(
    outsider: Outsider, register: Register
) -> None:
    alice, bob = await register("alice"), await register("bob")
    room, charlie = await joined_room(outsider, alice)
    await bob.join(room.room_id)
    limited = json.dumps({"room": {"timeline": {"limit": 4}}})
    since = (await bob.request("GET", "/sync", filter=limited))["next_batch"]
    elsewhere = outsider.say(room, charlie, "1'")
    ours = [await alice.say(room.room_id, str(number)) for number in range(1, 5)]
    assert await outsider.send(elsewhere) == {elsewhere.event_id: {}}
    await alice.hears(room.room_id, elsewhere.event_id)
    later = [await alice.say(room.room_id, str(number)) for number in range(5, 8)]

    synced = await bob.request("GET", "/sync", filter=limited, since=since)
    timeline = synced["rooms"]["join"][room.room_id]["timeline"]
    assert [event["event_id"] for event in timeline["events"]] == [elsewhere.event_id, *later]

    query = {"dir": "b", "limit": 4, "from": timeline["prev_batch"]}
    page = await alice.request("GET", f"/rooms/{room.room_id}/messages", **query)
    assert [event["event_id"] for event in page["chunk"]] == ours[::-1]


async def test_an_event_whose_predecessors_cannot_be_had_may_come_again_after_them(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice)
    first = outsider.event(room, "m.event.a", {"event": "A"}, sender=charlie)
    second = outsider.event(room, "m.event.b", {"event": "B"}, sender=charlie, prev=[first])

    # No error: there is nothing wrong with the event itself.
    assert await outsider.send(second) == {second.event_id: {}}
    assert await outsider.send(first) == {first.event_id: {}}
    await alice.hears(room.room_id, first.event_id)
    assert alice.view.event(room.room_id, second.event_id) is None
    assert await outsider.send(second) == {second.event_id: {}}
    await alice.hears(room.room_id, second.event_id)
    # What it would have asked for to close the gap was not to be had.
    outsider.unexpected.clear()


async def test_a_float_in_a_missing_event_keeps_out_what_builds_on_it(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice, "6")
    latest = room.tip
    bad = outsider.event(
        room, "m.room.message", {"body": "1", "bad_val": 1.1}, sender=charlie, rules=ROOM_VERSIONS["5"]
    )
    sent = outsider.say(room, charlie, "2", prev=[bad])
    gaps: list[dict[str, Any]] = []

    def missing(asked: Asked) -> Answer:
        gaps.append(asked.json)
        return 200, {"events": [bad.pdu]} if len(gaps) == 1 else {}

    outsider.answers("POST", f"{V1}/get_missing_events/{{room}}", missing)
    assert list(await outsider.send(sent)) == [sent.event_id]
    # The room goes on from where it was before.
    third = outsider.say(room, charlie, "3", prev=[sent])
    await outsider.send(third)

    assert [(gap["earliest_events"], gap["latest_events"]) for gap in gaps] == [
        ([latest.event_id], [sent.event_id]),
        ([latest.event_id], [third.event_id]),
    ]
    outsider.unexpected.clear()


async def test_what_builds_on_a_state_key_of_too_many_bytes_is_heard(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    room, charlie = await joined_room(outsider, alice)
    latest = room.tip
    long = "\N{COLLISION SYMBOL}" * 70  # 280 bytes, yet no more than 255 characters
    broken = outsider.event(room, "my.room.breaker", {}, sender=charlie, state_key=long)
    sent = outsider.say(room, charlie, "2", prev=[broken])

    def missing(asked: Asked) -> Answer:
        assert asked.json["earliest_events"] == [latest.event_id]
        return 200, {"events": [broken.pdu]}

    outsider.answers("POST", f"{V1}/get_missing_events/{{room}}", missing)
    assert await outsider.send(sent) == {sent.event_id: {}}
    await alice.hears(room.room_id, sent.event_id)


async def test_an_event_without_its_whole_auth_chain_does_not_become_state(
    outsider: Outsider, register: Register
) -> None:
    """Where ``/state_ids`` names events one of which nobody gives, none that rests on it counts."""
    alice = await register("alice")
    room_id = await alice.create_room(preset="public_chat", room_version="10")
    outsider.answers_transactions()
    outsider.answers_events()
    bob = outsider.user("bob")
    room = await outsider.join(room_id, bob)
    state_before, latest = list(room.state.values()), room.tip
    members = [latest]
    for name in "ABCDE":
        content = {"membership": "join", "displayname": name}
        auth = [room.event(type_) for type_ in ("m.room.create", "m.room.power_levels", "m.room.join_rules")]
        members.append(
            outsider.event(
                room,
                "m.room.member",
                content,
                sender=bob,
                state_key=bob,
                prev=members[-1:],
                auth=[*auth, members[-1]],
            )
        )
    room.learn(each for each in members if each.content.get("displayname") != "B")
    room.state["m.room.member", bob] = members[-1]
    first = outsider.say(room, bob, "for /state_ids", prev=members[-1:])
    second = outsider.say(room, bob, "for /get_missing_events", prev=[first])
    third = outsider.say(room, bob, "for /send", prev=[second])
    room.learn([first, second, third])
    outsider.answers(
        "POST", f"{V1}/get_missing_events/{{room}}", lambda asked: (200, {"events": [second.pdu]})
    )

    def state_ids(asked: Asked) -> Answer:
        state = [event for event in state_before if event.state_key != bob]
        chain = [*room.auth_chain([latest, *state]), *members[:-1]]
        return 200, {
            "pdu_ids": [event.event_id for event in (*state, members[-1])],
            "auth_chain_ids": [event.event_id for event in chain],
        }

    outsider.answers("GET", f"{V1}/state_ids/{{room}}", state_ids)
    outsider.answers("GET", f"{V1}/event_auth/{{room}}/{{event}}", lambda asked: (404, {}))
    assert await outsider.send(third) == {third.event_id: {}}

    assert (await alice.state_content(room_id, "m.room.member", bob)).get("displayname", "") == ""
    outsider.unexpected.clear()


async def test_an_invitation_to_a_chat_for_two_says_so(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    bob = outsider.user("bob")
    room = outsider.room("11", bob)
    direct = {"membership": "invite", "is_direct": True}
    invite = outsider.event(room, "m.room.member", direct, sender=bob, state_key=alice.user_id)
    body = {"room_version": "11", "event": invite.pdu, "invite_room_state": []}
    path = f"{V2}/invite/{room.room_id}/{invite.event_id}".replace("$", "%24")

    status, signed = await outsider.ask("PUT", path, body)
    assert status == 200, signed

    shown = await alice.is_invited(room.room_id)
    (member,) = [event for event in shown if event.get("state_key") == alice.user_id]
    assert member["content"]["is_direct"] is True


async def test_a_profile_is_asked_for_over_there(outsider: Outsider, register: Register) -> None:
    alice = await register("alice")
    remote = outsider.user("user")

    def profile(asked: Asked) -> Answer:
        assert asked.query["user_id"] == [remote]
        return 200, {"displayname": "my remote display name", "avatar_url": ""}

    outsider.answers("GET", f"{V1}/query/profile", profile)
    found = await alice.request("GET", f"/profile/{remote}/displayname")
    assert found["displayname"] == "my remote display name"


async def test_messages_of_the_past_are_asked_for_where_they_are(
    outsider: Outsider, register: Register
) -> None:
    alice = await register("alice")
    outsider.answers_joins()
    outsider.answers_transactions()
    charlie = outsider.user("charlie")
    room = outsider.room("12", charlie)
    said = outsider.say(room, charlie, "before you came")
    room.add(said)

    def backfill(asked: Asked) -> Answer:
        assert int(asked.query["limit"][0]) > 0
        assert asked.query["v"]
        return 200, {"origin": outsider.name, "origin_server_ts": 1, "pdus": pdus(room.timeline[:-1][::-1])}

    outsider.answers("GET", f"{V1}/backfill/{{room}}", backfill)
    # Whatever it asks beside this, to know the state back then.
    for path in ("state_ids/{room}", "state/{room}", "event/{event}", "event_auth/{room}/{event}"):
        outsider.answers("GET", f"{V1}/{path}", lambda asked: (404, {}))
    await alice.join(outsider.alias("past", room))
    async with asyncio.timeout(20):
        while said.event_id not in [event["event_id"] for event in await alice.history(room.room_id)]:
            pass
