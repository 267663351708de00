import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.event_format import (
    MAX_EVENT_BYTES,
    InvalidEvent,
    check_short,
    client_event,
    parse_event,
    stripped,
)
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, V1, V2, V3, V5, V6, V10, V11, V12, RoomVersion
from homeserver.protocol.signing import event_id_of

HASH = "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"
MISSING = object()

every_version = pytest.mark.parametrize("rules", ROOM_VERSIONS.values(), ids=lambda rules: rules.id)


def references(rules: RoomVersion, *event_ids: str) -> list[Any]:
    return list(event_ids) if rules.event_id_is_hash else [[one, {"sha256": "x"}] for one in event_ids]


def message(rules: RoomVersion, **fields: Any) -> dict[str, Any]:
    pdu = {
        "type": "m.room.message",
        "room_id": f"!{HASH}" if rules.hash_room_ids else "!room:one.example",
        "sender": "@alice:one.example",
        "content": {"body": "hello"},
        "origin_server_ts": 1_700_000_000_000,
        "depth": 12,
        "hashes": {"sha256": "x"},
        "signatures": {"one.example": {"ed25519:1": "sig"}},
        "prev_events": references(rules, "$p:one.example", "$q:one.example"),
        "auth_events": references(rules, "$a:one.example"),
    }
    if not rules.event_id_is_hash:
        pdu["event_id"] = "$e:one.example"
    return {key: value for key, value in (pdu | fields).items() if value is not MISSING}


def create(rules: RoomVersion, **fields: Any) -> dict[str, Any]:
    start = {"type": "m.room.create", "state_key": "", "content": {}, "prev_events": [], "auth_events": []}
    room_id = MISSING if rules.hash_room_ids else "!room:one.example"
    return message(rules, **(start | {"room_id": room_id} | fields))


@every_version
def test_a_message_of_every_room_version(rules: RoomVersion) -> None:
    pdu = message(rules)
    event = parse_event(json.dumps(pdu | {"unsigned": {"age": 1}}, indent=2).encode(), rules)
    assert event.event_id == event_id_of(pdu, rules)
    assert event.room_id == pdu["room_id"]
    assert (event.type, event.sender, event.state_key) == ("m.room.message", "@alice:one.example", None)
    assert (event.origin_server_ts, event.depth) == (1_700_000_000_000, 12)
    assert event.prev_events == ("$p:one.example", "$q:one.example")
    assert event.auth_events == ("$a:one.example",)
    assert event.json == encode(pdu)
    assert event.content == {"body": "hello"}


@every_version
def test_bytes_and_a_dict_give_the_same_event_and_the_dict_is_left_alone(rules: RoomVersion) -> None:
    pdu = message(rules, unsigned={"age": 1}, state_key="key")
    before = json.dumps(pdu)
    from_dict = parse_event(pdu, rules)
    from_bytes = parse_event(before.encode(), rules)
    assert json.dumps(pdu) == before
    assert from_dict.json == from_bytes.json
    assert from_dict.event_id == from_bytes.event_id
    assert from_dict.key == ("m.room.message", "key")


@every_version
def test_an_event_comes_back_from_its_own_json(rules: RoomVersion) -> None:
    event = parse_event(create(rules), rules)
    again = parse_event(event.json, rules)
    assert (again.event_id, again.room_id, again.json) == (event.event_id, event.room_id, event.json)


def test_the_room_id_of_a_v12_create_event_is_its_event_id() -> None:
    event = parse_event(create(V12), V12)
    assert event.room_id == "!" + event.event_id[1:]
    assert "room_id" not in event.pdu
    with pytest.raises(InvalidEvent, match="must not have a room_id"):
        parse_event(create(V12, room_id=f"!{HASH}"), V12)
    with pytest.raises(InvalidEvent, match="room_id"):
        parse_event(create(V11, room_id=MISSING), V11)


def test_a_room_id_has_a_domain_before_v12_and_none_since() -> None:
    for rules, room_id in [
        (V11, f"!{HASH}"),
        (V12, "!room:one.example"),
        (V12, "!short"),
        (V12, f"!{HASH}:a"),
    ]:
        with pytest.raises(InvalidEvent, match="room_id"):
            parse_event(message(rules, room_id=room_id), rules)


def test_an_id_from_a_trusted_place_is_taken() -> None:
    assert parse_event(message(V12), V12, event_id="$known").event_id == "$known"
    assert parse_event(message(V1), V1, event_id="$e:one.example").event_id == "$e:one.example"
    with pytest.raises(InvalidEvent, match=r"event_id is not \$other"):
        parse_event(message(V1), V1, event_id="$other:one.example")


@pytest.mark.parametrize(
    "event_id", [MISSING, 5, "", "e", "$e", "$e:", "$e:not a server", "$" + "e" * 255 + ":a"]
)
def test_broken_event_ids_in_v1_and_v2(event_id: Any) -> None:
    for rules in (V1, V2):
        with pytest.raises(InvalidEvent, match="event_id"):
            parse_event(message(rules, event_id=event_id), rules)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", MISSING),
        ("type", 5),
        ("type", "é" * 256),
        ("state_key", None),
        ("state_key", 5),
        ("state_key", "é" * 256),
        ("state_key", "\ud800"),
        ("type", "m.room\0.name"),
        ("state_key", "\0"),
        ("sender", "@al\0ice:one.example"),
        ("sender", "@alice:one\0.example"),
        ("room_id", "!ro\0om:one.example"),
        ("room_id", "!" + "\0" * 43),
        ("sender", MISSING),
        ("sender", "alice"),
        ("sender", ["@alice:one.example"]),
        ("sender", "@" + "a" * 250 + ":one.example"),
        ("room_id", MISSING),
        ("room_id", 5),
        ("room_id", "room"),
        ("content", MISSING),
        ("content", []),
        ("content", None),
        ("content", "text"),
        ("hashes", MISSING),
        ("hashes", "x"),
        ("signatures", []),
        ("signatures", None),
        ("signatures", {"one.example": "sig"}),
        ("signatures", {"one.example": {"ed25519:1": 5}}),
        ("origin_server_ts", MISSING),
        ("origin_server_ts", True),
        ("origin_server_ts", "1"),
        ("origin_server_ts", 1.0),
        ("origin_server_ts", -1),
        ("origin_server_ts", 2**63),
        ("depth", MISSING),
        ("depth", False),
        ("depth", None),
        ("depth", -1),
        ("depth", 2**63),
        ("prev_events", MISSING),
        ("prev_events", {}),
        ("prev_events", [5]),
        ("prev_events", ["p"]),
        ("prev_events", [[]]),
        ("auth_events", None),
        ("auth_events", [None]),
        ("auth_events", [["$a:b"]]),
        ("auth_events", [[5, {}]]),
        ("auth_events", [["$a:b", "hash"]]),
    ],
)
@every_version
def test_wrong_fields_are_refused(rules: RoomVersion, field: str, value: Any) -> None:
    with pytest.raises(InvalidEvent):
        parse_event(message(rules, **{field: value}), rules)


@pytest.mark.parametrize("field", ["type", "state_key"])
def test_more_bytes_than_characters_are_taken_from_others_and_not_made_here(field: str) -> None:
    event = parse_event(message(V12, **{field: "é" * 255}), V12)
    with pytest.raises(InvalidEvent, match=f"{field} is longer than 255 bytes"):
        check_short(event)
    check_short(parse_event(message(V12, **{field: "é" * 127}), V12))


@every_version
def test_limits_on_references(rules: RoomVersion) -> None:
    ids = [f"${number}:one.example" for number in range(21)]
    full = message(rules, prev_events=references(rules, *ids[:20]), auth_events=references(rules, *ids[:10]))
    assert len(parse_event(full, rules).prev_events) == 20
    with pytest.raises(InvalidEvent, match="prev_events has more than 20"):
        parse_event(full | {"prev_events": references(rules, *ids)}, rules)
    with pytest.raises(InvalidEvent, match="auth_events has more than 10"):
        parse_event(full | {"auth_events": references(rules, *ids[:11])}, rules)


def test_references_are_pairs_in_v1_and_v2_and_ids_since() -> None:
    for rules, entries in [(V2, references(V3, "$p:a")), (V3, references(V2, "$p:a"))]:
        with pytest.raises(InvalidEvent, match="prev_events"):
            parse_event(message(rules, prev_events=entries), rules)


@every_version
def test_the_size_limit_counts_signatures_and_not_unsigned(rules: RoomVersion) -> None:
    room_left = MAX_EVENT_BYTES - len(encode(message(rules, content={"body": ""})))
    largest = message(rules, content={"body": "a" * room_left})
    assert len(parse_event(largest | {"unsigned": {"a": "b" * 1000}}, rules).json) == MAX_EVENT_BYTES
    with pytest.raises(InvalidEvent, match="bytes"):
        parse_event(message(rules, content={"body": "a" * (room_left + 1)}), rules)


def test_numbers_are_free_before_v6_and_canonical_since() -> None:
    for number in (1.5, 2**53, -(2**70)):
        content = {"n": number}
        assert parse_event(message(V5, content=content), V5).content == content
        with pytest.raises(InvalidEvent, match="canonical"):
            parse_event(message(V6, content=content), V6)
    assert parse_event(message(V5, depth=2**63 - 1), V5).depth == 2**63 - 1
    assert parse_event(message(V6, depth=2**53 - 1), V6).depth == 2**53 - 1
    with pytest.raises(InvalidEvent, match="depth"):
        parse_event(message(V6, depth=2**53), V6)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b'"text"', b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000, b'{"a":' * 100_000]
)
@every_version
def test_what_is_no_object_is_refused(rules: RoomVersion, data: bytes) -> None:
    with pytest.raises(InvalidEvent):
        parse_event(data, rules)


@every_version
def test_deep_nesting_is_refused(rules: RoomVersion) -> None:
    for depth in (300, 900, 5000):
        bomb = encode(message(rules)).replace(b'"hello"', b"[" * depth + b"]" * depth)
        with pytest.raises(InvalidEvent):
            parse_event(bomb, rules)
        nest: Any = 1
        for _ in range(depth):
            nest = [nest]
        with pytest.raises(InvalidEvent, match="nested"):
            parse_event(message(rules, content={"nest": nest}), rules)


def test_an_event_without_signatures_is_one_of_ours_before_signing() -> None:
    assert "signatures" not in parse_event(message(V12, signatures=MISSING), V12).pdu


def redaction(rules: RoomVersion, **fields: Any) -> Event:
    return parse_event(message(rules, type="m.room.redaction", **fields), rules)


def test_what_a_redaction_redacts_is_at_the_top_before_v11_and_in_the_content_since() -> None:
    assert redaction(V10, redacts="$x", content={"redacts": "$y"}).redacts == "$x"
    assert redaction(V11, redacts="$x", content={"redacts": "$y"}).redacts == "$y"
    assert redaction(V10).redacts is None
    assert redaction(V11, content={"redacts": 5}).redacts is None
    assert parse_event(message(V10, redacts="$x"), V10).redacts is None
    with pytest.raises(InvalidEvent, match="redacts"):
        redaction(V10, redacts=5)


def test_no_identifier_holds_a_nul() -> None:
    for field in ("prev_events", "auth_events"):
        for rules in (V1, V12):
            with pytest.raises(InvalidEvent, match=field):
                parse_event(message(rules, **{field: references(rules, "$p\0:a")}), rules)
    with pytest.raises(InvalidEvent, match="event_id"):
        parse_event(message(V1, event_id="$e\0:one.example"), V1)
    with pytest.raises(InvalidEvent, match="redacts holds a NUL"):
        redaction(V10, redacts="$x\0")
    assert redaction(V11, content={"redacts": "$x\0"}).redacts is None
    assert parse_event(message(V11, content={"body": "\0"}), V11).content == {"body": "\0"}


def test_clients_see_redacts_in_both_places_in_every_version() -> None:
    for event in (redaction(V10, redacts="$x", content={}), redaction(V11, content={"redacts": "$x"})):
        formatted = client_event(event)
        assert formatted["redacts"] == "$x"
        assert formatted["content"]["redacts"] == "$x"


def test_the_client_format_has_nothing_of_the_federation() -> None:
    event = parse_event(message(V12, state_key=""), V12)
    expected = {
        "event_id": event.event_id,
        "room_id": event.room_id,
        "type": "m.room.message",
        "sender": "@alice:one.example",
        "origin_server_ts": 1_700_000_000_000,
        "state_key": "",
        "content": {"body": "hello"},
    }
    assert client_event(event) == expected
    assert client_event(event, unsigned={"age": 5}) == expected | {"unsigned": {"age": 5}}
    assert "room_id" not in client_event(event, room_id=False)
    assert "state_key" not in client_event(parse_event(message(V12), V12))


def test_stripped_state() -> None:
    assert stripped(parse_event(message(V12, state_key="key"), V12)) == {
        "type": "m.room.message",
        "state_key": "key",
        "sender": "@alice:one.example",
        "content": {"body": "hello"},
    }


room_versions = st.sampled_from(list(ROOM_VERSIONS.values()))
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["m.room.create", "m.room.redaction", "$a:b", "!a:b", "@a:b", "\ud800", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*message(V1, state_key="", redacts="$x", unsigned={}), "x"])


@settings(max_examples=400)
@given(room_versions, st.dictionaries(fields, hostile, min_size=1, max_size=4))
def test_any_fields_give_an_event_or_invalid_event(rules: RoomVersion, changed: dict[str, Any]) -> None:
    try:
        event = parse_event(message(rules, **changed), rules)
    except InvalidEvent:
        return
    assert parse_event(event.json, rules).event_id == event.event_id
    assert client_event(event)["content"].keys() >= event.content.keys()


@given(room_versions, hostile | st.binary())
def test_anything_at_all_gives_invalid_event(rules: RoomVersion, anything: Any) -> None:
    data = anything if isinstance(anything, bytes) else json.dumps(anything).encode()
    with pytest.raises(InvalidEvent):
        parse_event(data, rules)
