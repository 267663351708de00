"""Sealing in one go gives, byte for byte, what signing and then parsing gives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.event_format import MAX_EVENT_BYTES, InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, V5, V12, RoomVersion
from homeserver.protocol.sealing import seal_event
from homeserver.protocol.signing import SigningKey, content_hash_matches, sign_event
from tests.protocol.json_values import json_values

KEY = SigningKey("ed25519:1", bytes(range(32)))
SERVER = "here.example"

room_versions = st.sampled_from(list(ROOM_VERSIONS.values()))
types = st.sampled_from(
    [
        "m.room.message",
        "m.room.member",
        "m.room.create",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.redaction",
        "m.room.aliases",
        "x" * 256,
        "a\x00b",
        "é",
    ]
)
names = st.sampled_from(
    ["body", "membership", "creator", "users", "join_rule", "allow", "redacts", "third_party_invite"]
)
contents = st.dictionaries(names, json_values, max_size=4)
#: What may be wrong with a template, or unusual in it.
oddities = st.dictionaries(
    st.sampled_from(
        [
            "sender",
            "room_id",
            "depth",
            "origin_server_ts",
            "prev_events",
            "auth_events",
            "state_key",
            "redacts",
            "unsigned",
            "signatures",
            "hashes",
            "msc4354_sticky",
            "extra",
            "content",
        ]
    ),
    json_values | st.just(["$event"]) | st.just({"duration_ms": 5}) | st.just("\ud800"),
    max_size=2,
)


def template(rules: RoomVersion, type_: str = "m.room.message", **fields: Any) -> dict[str, Any]:
    reference = "$" + "a" * 43
    references = [reference] if rules.event_id_is_hash else [[reference, {"sha256": "x"}]]
    pdu: dict[str, Any] = {
        "auth_events": references,
        "content": {"body": "hello", "ä": ["ö", "\U0001f600", None, True]},
        "depth": 7,
        "origin_server_ts": 1_790_000_000_000,
        "prev_events": references,
        "sender": "@alice:here.example",
        "type": type_,
    }
    if not rules.event_id_is_hash:
        pdu["event_id"] = "$chosen:here.example"
    if not (rules.hash_room_ids and type_ == "m.room.create"):
        pdu["room_id"] = "!" + "b" * 43 if rules.hash_room_ids else "!room:here.example"
    return pdu | fields


def step_by_step(pdu: dict[str, Any], rules: RoomVersion) -> Event | None:
    try:
        return parse_event(sign_event(pdu, rules, SERVER, KEY), rules)
    except ValueError:  # an ``InvalidEvent``, or JSON that cannot be hashed
        return None


def at_once(pdu: dict[str, Any], rules: RoomVersion) -> Event | None:
    try:
        return seal_event(pdu, rules, SERVER, KEY)
    except InvalidEvent:
        return None


def fields_of(event: Event | None) -> dict[str, Any] | None:
    return None if event is None else msgspec.structs.asdict(event)


@given(rules=room_versions, type_=types, content=contents, state_key=st.none() | st.text(max_size=3))
def test_any_content_is_sealed_as_it_would_be_step_by_step(
    rules: RoomVersion, type_: str, content: dict[str, Any], state_key: str | None
) -> None:
    pdu = template(rules, type_, content=content, **({} if state_key is None else {"state_key": state_key}))
    assert fields_of(at_once(pdu, rules)) == fields_of(step_by_step(pdu, rules))


@given(rules=room_versions, content=contents, now_ms=st.integers(-1, 2**63))
def test_a_message_like_the_last_one_is_sealed_or_refused_as_if_it_were_the_first(
    rules: RoomVersion, content: dict[str, Any], now_ms: int
) -> None:
    pdu = template(rules, content=content, origin_server_ts=now_ms)
    try:
        again: Event | None = seal_event(pdu, rules, SERVER, KEY, again=True)
    except InvalidEvent:
        again = None
    assert fields_of(again) == fields_of(at_once(pdu, rules))


@given(rules=room_versions, type_=types, odd=oddities)
def test_any_template_is_sealed_or_refused_as_it_would_be_step_by_step(
    rules: RoomVersion, type_: str, odd: dict[str, Any]
) -> None:
    pdu = template(rules, type_) | odd
    assert fields_of(at_once(pdu, rules)) == fields_of(step_by_step(pdu, rules))


@pytest.mark.parametrize("rules", ROOM_VERSIONS.values(), ids=lambda rules: f"v{rules.id}")
def test_a_sealed_event_bears_the_hash_of_its_content(rules: RoomVersion) -> None:
    event = seal_event(template(rules), rules, SERVER, KEY)
    assert content_hash_matches(event.pdu)
    assert fields_of(parse_event(event.json, rules)) == fields_of(event)


@pytest.mark.parametrize("rules", ROOM_VERSIONS.values(), ids=lambda rules: f"v{rules.id}")
def test_the_size_limit_counts_what_sealing_adds(rules: RoomVersion) -> None:
    room_left = MAX_EVENT_BYTES - len(
        seal_event(template(rules, content={"body": ""}), rules, SERVER, KEY).json
    )
    largest = seal_event(template(rules, content={"body": "x" * room_left}), rules, SERVER, KEY)
    assert len(largest.json) == MAX_EVENT_BYTES
    with pytest.raises(InvalidEvent):
        seal_event(template(rules, content={"body": "x" * (room_left + 1)}), rules, SERVER, KEY)


def test_floats_are_sealed_until_v5_and_refused_since() -> None:
    content = {"pi": 3.5, "small": 1e-7}
    assert b'"pi":3.5,"small":1e-07' in seal_event(template(V5, content=content), V5, SERVER, KEY).json
    for number in (3.5, 2**53, float("nan")):
        with pytest.raises(InvalidEvent):
            seal_event(template(V12, content={"number": number}), V12, SERVER, KEY)


def test_a_template_is_left_as_it_is() -> None:
    pdu = template(V12)
    seal_event(pdu, V12, SERVER, KEY)
    assert pdu == template(V12)
