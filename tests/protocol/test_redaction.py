from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import (
    ROOM_VERSIONS,
    V1,
    V5,
    V6,
    V7,
    V8,
    V9,
    V10,
    V11,
    V12,
    RoomVersion,
)
from homeserver.protocol.signing import event_id_of, reference_hash

EVERY_KEY = {
    "event_id": "$a:b",
    "type": "m.room.message",
    "room_id": "!r:b",
    "sender": "@s:b",
    "state_key": "",
    "content": {"body": "secret"},
    "hashes": {"sha256": "x"},
    "signatures": {"b": {"ed25519:1": "sig"}},
    "depth": 1,
    "prev_events": [],
    "prev_state": [],
    "auth_events": [],
    "origin": "b",
    "origin_server_ts": 1,
    "membership": "join",
    "unsigned": {"age": 1},
    "redacts": "$x",
    "org.example.custom": 1,
}


def content_left(rules: RoomVersion, event_type: str, content: dict[str, Any]) -> Any:
    return redact({"type": event_type, "content": content}, rules)["content"]


@pytest.mark.parametrize("rules", [V1, V10])
def test_top_level_keys_before_v11(rules: RoomVersion) -> None:
    dropped = {"unsigned", "redacts", "org.example.custom"}
    assert redact(EVERY_KEY, rules).keys() == EVERY_KEY.keys() - dropped


@pytest.mark.parametrize("rules", [V11, V12])
def test_top_level_keys_since_v11(rules: RoomVersion) -> None:
    dropped = {"unsigned", "redacts", "org.example.custom", "origin", "membership", "prev_state"}
    assert redact(EVERY_KEY, rules).keys() == EVERY_KEY.keys() - dropped


@pytest.mark.parametrize("rules", ROOM_VERSIONS.values(), ids=lambda rules: rules.id)
def test_the_content_of_a_message_goes(rules: RoomVersion) -> None:
    before = {**EVERY_KEY}
    assert redact(before, rules)["content"] == {}
    assert before == EVERY_KEY


def test_aliases_stay_until_v6() -> None:
    content = {"aliases": ["#a:b"], "x": 1}
    assert content_left(V5, "m.room.aliases", content) == {"aliases": ["#a:b"]}
    assert content_left(V6, "m.room.aliases", content) == {}


def test_join_rules_keep_allow_since_v8() -> None:
    content = {"join_rule": "restricted", "allow": [1], "x": 1}
    assert content_left(V7, "m.room.join_rules", content) == {"join_rule": "restricted"}
    assert content_left(V8, "m.room.join_rules", content) == {"join_rule": "restricted", "allow": [1]}


def test_members_keep_who_authorised_them_since_v9() -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@a:b", "displayname": "x"}
    assert content_left(V8, "m.room.member", content) == {"membership": "join"}
    assert content_left(V9, "m.room.member", content) == {
        "membership": "join",
        "join_authorised_via_users_server": "@a:b",
    }


def test_members_keep_the_signed_part_of_a_third_party_invite_since_v11() -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}, "display_name": "x"}}
    assert content_left(V10, "m.room.member", content) == {"membership": "invite"}
    assert content_left(V11, "m.room.member", content) == {
        "membership": "invite",
        "third_party_invite": {"signed": {"token": "t"}},
    }
    for unsigned in ({}, {"display_name": "x"}):
        content = {"third_party_invite": unsigned}
        assert content_left(V11, "m.room.member", content) == {"third_party_invite": {}}
    for broken in (["signed"], "signed", None):
        assert content_left(V11, "m.room.member", {"third_party_invite": broken}) == {}


def test_create_keeps_its_creator_before_v11_and_everything_since() -> None:
    content = {"creator": "@a:b", "room_version": "x", "m.federate": False}
    assert content_left(V10, "m.room.create", content) == {"creator": "@a:b"}
    assert content_left(V11, "m.room.create", content) == content


def test_power_levels_keep_invite_since_v11() -> None:
    levels = ("ban", "events_default", "kick", "redact", "state_default", "users_default")
    kept = dict.fromkeys(levels, 1) | {"users": {}, "events": {}}
    content = kept | {"invite": 1, "notifications": {"room": 1}}
    assert content_left(V1, "m.room.power_levels", content) == kept
    assert content_left(V10, "m.room.power_levels", content) == kept
    assert content_left(V11, "m.room.power_levels", content) == kept | {"invite": 1}


def test_redactions_keep_what_they_redact_since_v11() -> None:
    content = {"redacts": "$x", "reason": "spam"}
    assert content_left(V10, "m.room.redaction", content) == {}
    assert content_left(V11, "m.room.redaction", content) == {"redacts": "$x"}


@pytest.mark.parametrize("rules", [V1, V12])
def test_history_visibility_stays(rules: RoomVersion) -> None:
    content = {"history_visibility": "joined", "x": 1}
    assert content_left(rules, "m.room.history_visibility", content) == {"history_visibility": "joined"}


values = (
    st.none()
    | st.integers(0, 9)
    | st.text("ab", max_size=3)
    | st.dictionaries(st.just("signed"), st.integers())
)
keys = st.sampled_from(
    [
        "membership",
        "creator",
        "join_rule",
        "allow",
        "users",
        "invite",
        "aliases",
        "redacts",
        "third_party_invite",
        "x",
    ]
)
types = st.sampled_from(
    [
        "m.room.aliases",
        "m.room.create",
        "m.room.history_visibility",
        "m.room.join_rules",
        "m.room.member",
        "m.room.message",
        "m.room.power_levels",
        "m.room.redaction",
    ]
)
pdus = st.fixed_dictionaries(
    {"type": types, "content": st.dictionaries(keys, values), "event_id": st.just("$a:b")},
    optional=dict.fromkeys(
        ("origin", "membership", "unsigned", "signatures", "depth", "redacts", "x"), values
    ),
)


@given(pdus, st.sampled_from(list(ROOM_VERSIONS.values())))
def test_redacting_twice_changes_nothing_and_the_event_stays_itself(
    pdu: dict[str, Any], rules: RoomVersion
) -> None:
    redacted = redact(pdu, rules)
    assert redact(redacted, rules) == redacted
    assert reference_hash(redacted, rules) == reference_hash(pdu, rules)
    assert event_id_of(redacted, rules) == event_id_of(pdu, rules)
