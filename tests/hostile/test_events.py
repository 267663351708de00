"""Properly signed events that want what they may not have, or are no events at all."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from homeserver.protocol.event_format import parse_event
from homeserver.protocol.signing import generate_signing_key, sign_json
from tests.hostile.conftest import VERSIONS, Set, Start
from tests.hostile.harm import STORED, Scene, refused
from tests.hostile.peer import HostilePeer, Pdu

NOT_ALLOWED = "The room does not allow the event"


async def check_not_allowed(scene: Scene, pdu: Pdu, **cost: Any) -> None:
    """The event is kept as a fact about the graph, and changes nothing."""
    async with refused(scene, **{"rows": STORED, **cost}):
        assert await scene.evil.sends_one(scene.here, pdu) == NOT_ALLOWED


@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_promotes_themselves(set_scene: Set, version: str) -> None:
    scene = await set_scene(version)
    levels = (await scene.evil.state_at_tips(scene.room_id))["m.room.power_levels", ""].content
    for users in ({scene.mallory: 100}, {scene.mallory: 1}, {scene.mallory: "100"}):
        content = {**levels, "users": {**levels.get("users", {}), **users}}
        pdu = await scene.evil.event(
            scene.room_id, scene.mallory, "m.room.power_levels", content, state_key=""
        )
        await check_not_allowed(scene, pdu)


@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_takes_power_from_the_admin(set_scene: Set, version: str) -> None:
    scene = await set_scene(version)
    for content in ({}, {"users": {}}, {"users_default": 100}, {"state_default": 0, "users": {}}):
        pdu = await scene.evil.event(
            scene.room_id, scene.mallory, "m.room.power_levels", content, state_key=""
        )
        await check_not_allowed(scene, pdu)


async def test_a_level_of_thousands_of_digits_is_no_level(set_scene: Set) -> None:
    """Until v9 levels may be strings, which Python would take long to make numbers of."""
    scene = await set_scene("9")
    for level in ("9" * 60_000, " 1 " * 100, "1e5", "\u0661", "-" * 1000, "0x10"):
        content = {"users": {scene.mallory: level}}
        pdu = await scene.evil.event(
            scene.room_id, scene.mallory, "m.room.power_levels", content, state_key=""
        )
        await check_not_allowed(scene, pdu)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_has_one_create_event(set_scene: Set, version: str) -> None:
    scene = await set_scene(version)
    content = {"creator": scene.mallory, "room_version": version}
    pdu = await scene.evil.template(scene.room_id, scene.mallory, "m.room.create", content, state_key="")
    rules = await scene.evil.rules(scene.room_id)
    first = {**pdu, "auth_events": [], "prev_events": []}
    for forged in (pdu, first):
        if rules.hash_room_ids:
            forged.pop("room_id")
        async with refused(scene, rows=STORED):
            assert await scene.evil.sends_one(scene.here, scene.evil.signed(forged, rules))


async def test_since_v12_a_create_event_names_no_room(set_scene: Set) -> None:
    scene = await set_scene("12")
    pdu = await scene.evil.event(scene.room_id, scene.mallory, "m.room.create", {}, state_key="")
    async with refused(scene):
        assert "must not have a room_id" in await scene.evil.sends_one(scene.here, pdu)


async def test_a_banned_user_does_not_come_back(scene: Scene) -> None:
    eve = scene.evil.user("eve")
    ban = {"membership": "ban"}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.member", ban, state_key=eve)
    await scene.here.network.settle()
    join = await scene.evil.event(scene.room_id, eve, "m.room.member", {"membership": "join"}, state_key=eve)
    await check_not_allowed(scene, join)

    # Without its ban among the auth events, it is the state before it that refuses.
    without = [name for name in join["auth_events"] if name != await _id(scene, "m.room.member", eve)]
    rules = await scene.evil.rules(scene.room_id)
    hidden = scene.evil.signed({**join, "auth_events": without}, rules)
    assert len(without) < len(join["auth_events"])
    await check_not_allowed(scene, hidden)


async def test_a_banned_user_who_builds_on_the_time_before_is_not_heard(scene: Scene) -> None:
    """Allowed by the state before it, refused by the room's state now: soft-failed."""
    eve = scene.evil.user("eve")
    await scene.evil.join(eve, scene.room_id, scene.here)
    await scene.here.network.settle()
    before = await scene.evil.message(scene.room_id, eve, "I was here")
    await scene.here.set_state(
        scene.room_id, scene.alice, "m.room.member", {"membership": "ban"}, state_key=eve
    )
    await scene.here.network.settle()
    async with refused(scene, rows=STORED):
        # The sender is told nothing (spec: "Soft failure").
        assert await scene.evil.sends_one(scene.here, before) == ""


@pytest.mark.parametrize("membership", ["join", "leave", "ban", "knock", "invite", "nonsense", None, 7])
async def test_nobody_sets_the_membership_of_others(scene: Scene, membership: Any) -> None:
    target = scene.alice if membership not in ("knock", "join") else scene.evil.user("eve")
    pdu = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.member", {"membership": membership}, state_key=target
    )
    await check_not_allowed(scene, pdu)


async def test_nobody_invites_to_a_room_they_may_not_invite_to(set_scene: Set) -> None:
    scene = await set_scene(power_level_content_override={"invite": 50})
    pdu = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.member", {"membership": "invite"}, state_key="@x:y.example"
    )
    await check_not_allowed(scene, pdu)


def third_party(scene: Scene, **signed: Any) -> dict[str, Any]:
    """What shows an invitation by a third party, as somebody would make it up."""
    key = generate_signing_key("0")
    claim = {"mxid": "@eve:evil.example", "token": "abc", **signed}
    return {"display_name": "eve", "signed": sign_json(claim, "identity.example", key)}


async def test_an_invite_by_a_third_party_needs_its_token_and_signature(scene: Scene) -> None:
    """Such an event needs no signature of its sender's server, so anybody can send it for anybody."""
    token = {"public_key": base64.b64encode(b"k" * 32).decode(), "key_validity_url": "https://x/y"}
    await scene.here.set_state(
        scene.room_id, scene.alice, "m.room.third_party_invite", token, state_key="abc"
    )
    await scene.here.network.settle()
    many = {f"s{n}": {"ed25519:0": base64.b64encode(bytes([n % 256]) * 64).decode()} for n in range(300)}
    for invite in (
        third_party(scene),
        third_party(scene, token="unknown"),
        third_party(scene, mxid="@other:evil.example"),
        {"signed": {"mxid": "@eve:evil.example", "token": "abc", "signatures": many}},
        {"signed": {"mxid": "@eve:evil.example", "token": "abc"}},
        {"signed": []},
        {},
        3,
    ):
        content = {"membership": "invite", "third_party_invite": invite}
        pdu = await scene.evil.event(
            scene.room_id, scene.alice, "m.room.member", content, state_key="@eve:evil.example"
        )
        await check_not_allowed(scene, pdu)


async def test_a_join_with_a_made_up_authoriser_is_dropped(set_scene: Set) -> None:
    scene = await set_scene()
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": scene.other_id}]}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.join_rules", rule)
    await scene.here.network.settle()
    eve = scene.evil.user("eve")
    for authoriser in (scene.alice, scene.mallory, "nobody", 5, f"@{'x' * 300}:here.example"):
        content = {"membership": "join", "join_authorised_via_users_server": authoriser}
        pdu = await scene.evil.event(scene.room_id, eve, "m.room.member", content, state_key=eve)
        async with refused(scene, rows=STORED):
            assert await scene.evil.sends_one(scene.here, pdu)


async def test_a_redaction_does_not_reach_into_another_room(set_scene: Set) -> None:
    for version in ("1", "11"):
        scene = await set_scene(version)
        secret = await scene.here.say(scene.other_id, scene.alice, "secret")
        welcome = (await scene.here.room(scene.room_id)).recent[-1]
        for target in (secret.id, welcome.id):
            changed = {} if version == "11" else {"redacts": target}
            content = {"redacts": target} if version == "11" else {}
            pdu = await scene.evil.event(scene.room_id, scene.mallory, "m.room.redaction", content, **changed)
            await scene.evil.sends_one(scene.here, pdu)
            assert (await scene.here.events.by_id(target)).event.content["body"] in ("secret", "welcome")
        await scene.works()


@pytest.mark.parametrize("version", ["1", "2"])
async def test_the_id_of_another_event_is_taken(set_scene: Set, version: str) -> None:
    """Until v2 the sender chooses ids."""
    scene = await set_scene(version)
    sent = await scene.evil.message(scene.room_id, scene.mallory, "first")
    assert await scene.evil.sends_one(scene.here, sent) == ""
    again = await scene.evil.message(scene.room_id, scene.mallory, "second", event_id=sent["event_id"])
    async with refused(scene, lines=0):
        # It is known already: nothing is to be done about it.
        assert await scene.evil.sends_one(scene.here, again) == ""
    ours = (await scene.here.room(scene.other_id)).recent[-1].id
    for name in (ours, "$new:here.example"):
        pdu = await scene.evil.message(scene.room_id, scene.mallory, "x", event_id=name)
        async with refused(scene):
            assert "here.example has not signed" in await scene.evil.sends_one(scene.here, pdu)


async def test_the_id_of_an_event_in_another_room_is_taken(set_scene: Set) -> None:
    scene = await set_scene("2")
    second = await scene.here.public_room(scene.alice, version="2")
    await scene.evil.join(scene.mallory, second, scene.here)
    await scene.here.network.settle()
    sent = await scene.evil.message(second, scene.mallory, "first")
    assert await scene.evil.sends_one(scene.here, sent) == ""
    again = await scene.evil.message(scene.room_id, scene.mallory, "x", event_id=sent["event_id"])
    async with refused(scene):
        assert "another room" in await scene.evil.sends_one(scene.here, again)


async def test_an_event_goes_to_the_room_it_names(scene: Scene) -> None:
    """A room the hostile server is not in, one nobody is in, and one that cannot be."""
    for room_id, error in (
        (scene.other_id, NOT_ALLOWED),
        ("!nowhere:here.example", "Unknown room"),
        ("nowhere", "room_id is not a room ID"),
        ("!" + "x" * 300, "room_id is not a room ID"),
        ("!x\u0000:here.example", "room_id is not a room ID"),
        ("", "room_id is not a room ID"),
    ):
        pdu = await scene.evil.template(scene.room_id, scene.mallory, "m.room.message", {"body": "x"})
        pdu = scene.evil.signed({**pdu, "room_id": room_id}, await scene.evil.rules(scene.room_id))
        async with refused(scene, rows=STORED, requests=2):
            assert await scene.evil.sends_one(scene.here, pdu) == error


async def test_the_admin_of_one_room_is_nobody_in_another(scene: Scene) -> None:
    """Auth events of mallory's own room, where mallory may do everything."""
    own = await scene.evil.public_room(scene.mallory, version="11")
    levels = (await scene.evil.state_at_tips(own)).values()
    wanted = ("m.room.create", "m.room.power_levels")
    auth = [event for event in levels if event.type in wanted or event.state_key == scene.mallory]
    pdu = await scene.evil.event(
        scene.room_id,
        scene.mallory,
        "m.room.name",
        {"name": "mine"},
        state_key="",
        auth_events=[event.event_id for event in auth],
    )
    async with refused(scene, requests=10, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_a_third_servers_user_is_not_the_hostile_servers_to_speak_for(
    scene: Scene, start: Start
) -> None:
    third: HostilePeer = await start("third.example", HostilePeer)
    carol = third.user("carol")
    await third.join(carol, scene.room_id, scene.here)
    await scene.here.network.settle()
    rules = await scene.evil.rules(scene.room_id)
    pdu = await scene.evil.template(scene.room_id, carol, "m.room.message", {"body": "x"})
    async with refused(scene, requests=1):
        error = await scene.evil.sends_one(scene.here, scene.evil.signed(pdu, rules))
        assert error == "third.example has not signed the event"


async def test_a_state_key_of_somebody_else_is_theirs(set_scene: Set) -> None:
    scene = await set_scene(power_level_content_override={"state_default": 0})
    pdu = await scene.evil.event(
        scene.room_id, scene.mallory, "org.example.note", {"x": "y"}, state_key=scene.alice
    )
    await check_not_allowed(scene, pdu)


async def test_an_event_that_is_not_allowed_is_told_in_one_line(scene: Scene) -> None:
    pdu = await scene.evil.event(scene.room_id, scene.mallory, "m.room.name", {"name": "x"}, state_key="")
    await check_not_allowed(scene, pdu)


async def test_the_admin_of_a_room_that_does_not_federate_hears_nobody(set_scene: Set) -> None:
    scene = await set_scene()
    room_id = await scene.here.public_room(scene.alice, version="11", creation_content={"m.federate": False})
    place = (room_id, scene.mallory)
    async with refused(scene, rows=0):
        status, answer = await scene.evil.asks(scene.here, "GET", "v1", "make_join", *place, query="?ver=11")
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


async def _id(scene: Scene, type_: str, state_key: str) -> str:
    return (await scene.evil.state_at_tips(scene.room_id))[type_, state_key].event_id


#: Changes to a message that make it none, and what is said of it.
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "21 prev_events": ({"prev_events": [f"$p{n}" for n in range(21)]}, "more than 20"),
    "11 auth_events": ({"auth_events": [f"$a{n}" for n in range(11)]}, "more than 10"),
    "100,000 auth_events": ({"auth_events": ["$a"] * 100_000}, "more than 10"),
    "no prev_events": ({"prev_events": []}, "builds on nothing"),
    "prev_events that are objects": ({"prev_events": [{}]}, "not an event ID"),
    "prev_events as in v1": ({"prev_events": [["$x:y", {"sha256": "x"}]]}, "not an event ID"),
    "a negative depth": ({"depth": -1}, "out of range"),
    "a depth beyond 2**53": ({"depth": 2**53}, "out of range"),
    "a depth that is true": ({"depth": True}, "not an integer"),
    "a time before the epoch": ({"origin_server_ts": -1}, "out of range"),
    "a time beyond 2**53": ({"origin_server_ts": 2**63 - 1}, "out of range"),
    "a float": ({"content": {"x": 1.5}}, "not canonical JSON"),
    "a whole float": ({"content": {"x": 1.0}}, "not canonical JSON"),
    "an integer beyond 2**53": ({"content": {"x": 2**53}}, "not canonical JSON"),
    "a type of 256 characters": ({"type": "\u00e9" * 256}, "longer than 255 bytes"),
    "a state key of 256 characters": ({"state_key": "\u00e9" * 256}, "longer than 255 bytes"),
    "a sender of 256 bytes": ({"sender": "@" + "\u00e9" * 121 + "x:evil.example"}, "not a user ID"),
    "a NUL in its type": ({"type": "x\u0000y"}, "NUL"),
    "a NUL in its state key": ({"state_key": "x\u0000y"}, "NUL"),
    "no content": ({"content": None}, "content is not an object"),
    "content that is a list": ({"content": []}, "content is not an object"),
    "a sender that is no user": ({"sender": "evil.example"}, "not a user ID"),
    "a sender with a line break": ({"sender": "@x:evil.example\r\nX: y"}, "not a user ID"),
    "65,537 bytes and more": ({"content": {"body": "x" * 65_536}}, "bytes are more than 65536"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_event_is_dropped(scene: Scene, name: str) -> None:
    changed, error = MALFORMED[name]
    pdu = await scene.evil.template(scene.room_id, scene.mallory, "m.room.message", {"body": "x"})
    pdu = scene.evil.signed({**pdu, **changed}, await scene.evil.rules(scene.room_id))
    async with refused(scene):
        assert error in await scene.evil.sends_one(scene.here, pdu)


async def test_an_event_of_65536_bytes_is_the_largest(scene: Scene) -> None:
    rules = await scene.evil.rules(scene.room_id)
    empty = await scene.evil.message(scene.room_id, scene.mallory, "")
    room_left = 65_536 - len(parse_event(empty, rules).json)
    largest = await scene.evil.message(scene.room_id, scene.mallory, "x" * room_left)
    assert len(parse_event(largest, rules).json) == 65_536
    assert await scene.evil.sends_one(scene.here, largest) == ""
    too_large = await scene.evil.message(scene.room_id, scene.mallory, "x" * (room_left + 1))
    async with refused(scene):
        assert "65537 bytes" in await scene.evil.sends_one(scene.here, too_large)


async def test_ids_of_255_bytes_are_the_longest(set_scene: Set) -> None:
    scene = await set_scene(power_level_content_override={"state_default": 0})
    for key in ("x" * 255, "\u00e9" * 127 + "x"):
        pdu = await scene.evil.event(scene.room_id, scene.mallory, "org.example", {}, state_key=key)
        assert await scene.evil.sends_one(scene.here, pdu) == ""
    assert ("org.example", "x" * 255) in await scene.here.state_ids(scene.room_id)


@pytest.mark.parametrize("depth", [0, 2**53 - 1])
@pytest.mark.parametrize("version", ["5", "11"])
async def test_a_depth_that_cannot_be_does_no_harm(set_scene: Set, version: str, depth: int) -> None:
    scene = await set_scene(version)
    if version == "5" and depth:
        depth = 2**63 - 1
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "deep", depth=depth)
    assert await scene.evil.sends_one(scene.here, pdu) == ""
    await scene.here.say(scene.room_id, scene.alice, "on top")
    await scene.here.network.settle()
    assert (await scene.evil.bodies(scene.room_id))[-1] == "on top"
    await scene.works()


async def test_the_order_of_a_timeline_is_not_the_senders_clock(scene: Scene) -> None:
    for ts in (0, 1):
        pdu = await scene.evil.message(scene.room_id, scene.mallory, f"at {ts}", origin_server_ts=ts)
        assert await scene.evil.sends_one(scene.here, pdu) == ""
    assert (await scene.here.bodies(scene.room_id))[-2:] == ["at 0", "at 1"]
    await scene.works()
