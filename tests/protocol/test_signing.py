import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import ROOM_VERSIONS, V1, V2, V3, V4, V7, V8, V12, RoomVersion
from homeserver.protocol.signing import (
    BadSignature,
    SigningKey,
    content_hash,
    content_hash_matches,
    countersign_event,
    decode_base64,
    encode_base64,
    event_id_of,
    format_signing_key_file,
    generate_signing_key,
    parse_signing_key_file,
    reference_hash,
    required_signers,
    sign_event,
    sign_json,
    verify_event_signature,
    verify_json,
)

#: The key of the specification's cryptographic test vectors.
KEY = SigningKey("ed25519:1", decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
OTHER_KEY = SigningKey("ed25519:1", bytes(32))

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
objects = st.dictionaries(
    text.filter(lambda key: key not in ("signatures", "unsigned")),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)
room_versions = st.sampled_from(list(ROOM_VERSIONS.values()))


def message(**fields: Any) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "event_id": "$e:one.example",
        "room_id": "!r:one.example",
        "sender": "@alice:one.example",
        "content": {"body": "hello"},
        "origin_server_ts": 1,
        "depth": 2,
        "prev_events": [],
        "auth_events": [],
    } | fields


@pytest.mark.parametrize(
    ("obj", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_json_signing_vectors_of_the_specification(obj: dict[str, Any], signature: str) -> None:
    signed = sign_json(obj, "domain", KEY)
    assert signed == obj | {"signatures": {"domain": {"ed25519:1": signature}}}
    verify_json(signed, "domain", "ed25519:1", KEY.verify_key_base64)


@pytest.mark.parametrize("rules", [V1, V3])
def test_minimal_event_signing_vector(rules: RoomVersion) -> None:
    event = {
        "room_id": "!x:domain",
        "sender": "@a:domain",
        "origin": "domain",
        "origin_server_ts": 1000000,
        "signatures": {},
        "hashes": {},
        "type": "X",
        "content": {},
        "prev_events": [],
        "auth_events": [],
        "depth": 3,
        "unsigned": {"age_ts": 1000000},
    }
    signature = "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
    assert sign_event(event, rules, "domain", KEY) == event | {
        "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
        "signatures": {"domain": {"ed25519:1": signature}},
    }


def test_event_signing_vector_with_redactable_content() -> None:
    event = {
        "content": {"body": "Here is the message content"},
        "event_id": "$0:domain",
        "origin": "domain",
        "origin_server_ts": 1000000,
        "type": "m.room.message",
        "room_id": "!r:domain",
        "sender": "@u:domain",
        "signatures": {},
        "unsigned": {"age_ts": 1000000},
    }
    signature = "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
    assert sign_event(event, V1, "domain", KEY) == event | {
        "hashes": {"sha256": "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"},
        "signatures": {"domain": {"ed25519:1": signature}},
    }


@pytest.mark.parametrize(
    ("data", "encoded"), [(b"", ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy")]
)
def test_unpadded_base64(data: bytes, encoded: str) -> None:
    assert encode_base64(data) == encoded
    assert decode_base64(encoded) == data
    assert decode_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("encoded", ["a", "ab!d", "é", "Zm9v\n", "-_-_"])
def test_what_is_no_base64(encoded: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_base64(encoded)


def test_signing_key_file_comes_back() -> None:
    key = generate_signing_key("a_Ab12")
    line = format_signing_key_file(key)
    assert line.startswith("ed25519 a_Ab12 ")
    assert parse_signing_key_file(line) == key
    assert generate_signing_key("a_Ab12") != key
    assert encode_base64(key.seed) not in repr(key)
    assert str(key.seed) not in repr(key)


@pytest.mark.parametrize("content", ["", "\n", "ed25519 a", "rsa a Zm9v", "ed25519 a !!!!", "ed25519 a Zm9v"])
def test_broken_signing_key_files_are_refused(content: str) -> None:
    with pytest.raises(ValueError, match="signing key"):
        parse_signing_key_file(content)


@given(objects, objects)
def test_a_signed_object_verifies_whatever_is_unsigned(obj: dict[str, Any], unsigned: dict[str, Any]) -> None:
    before = obj.copy()
    signed = sign_json(obj, "domain", KEY)
    assert obj == before
    both = sign_json(signed | {"unsigned": unsigned}, "second", OTHER_KEY)
    verify_json(both, "domain", KEY.key_id, KEY.verify_key_base64)
    verify_json(both, "second", OTHER_KEY.key_id, OTHER_KEY.verify_key_base64)


@given(objects, text, st.integers(10, 99))
def test_a_changed_object_does_not_verify(obj: dict[str, Any], key: str, value: int) -> None:
    signed = sign_json(obj, "domain", KEY)
    tampered = {**obj, key: value, "unsigned": {}, "signatures": signed["signatures"]}
    if key in ("unsigned", "signatures"):
        tampered["added"] = value
    with pytest.raises(BadSignature):
        verify_json(tampered, "domain", KEY.key_id, KEY.verify_key_base64)


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        {},
        {"domain": None},
        {"domain": {}},
        {"domain": {"ed25519:1": 5}},
        {"domain": {"ed25519:1": "é"}},
    ]
    + [{"domain": {"ed25519:1": signature}} for signature in ("", "Zg", "a", "A" * 86)],
)
def test_missing_and_malformed_signatures(signatures: Any) -> None:
    with pytest.raises(BadSignature):
        verify_json({"signatures": signatures}, "domain", "ed25519:1", KEY.verify_key_base64)


def test_the_wrong_key_does_not_verify() -> None:
    signed = sign_json({"a": 1}, "domain", KEY)
    for server_name, key_id, verify_key in [
        ("domain", "ed25519:1", OTHER_KEY.verify_key_base64),
        ("domain", "ed25519:1", "Zg"),
        ("domain", "ed25519:1", "not base64"),
        ("domain", "ed25519:2", KEY.verify_key_base64),
        ("domain", "rsa:1", KEY.verify_key_base64),
        ("other", "ed25519:1", KEY.verify_key_base64),
    ]:
        with pytest.raises(BadSignature):
            verify_json(signed, server_name, key_id, verify_key)


@given(objects, room_versions)
def test_a_signed_event_verifies_whole_and_redacted(content: dict[str, Any], rules: RoomVersion) -> None:
    signed = sign_event(message(content=content), rules, "one.example", KEY)
    redacted = redact(signed, rules)
    assert content_hash_matches(signed)
    assert content_hash_matches(redacted) == (content == {})
    for form in (signed, redacted, signed | {"unsigned": {"age": 1}}):
        verify_event_signature(form, rules, "one.example", KEY.key_id, KEY.verify_key_base64)


@given(room_versions, st.sampled_from(["sender", "room_id", "type", "depth", "hashes", "origin_server_ts"]))
def test_a_protected_field_changed_breaks_the_signature(rules: RoomVersion, field: str) -> None:
    signed = sign_event(message(), rules, "one.example", KEY)
    with pytest.raises(BadSignature):
        verify_event_signature(
            signed | {field: "changed"}, rules, "one.example", KEY.key_id, KEY.verify_key_base64
        )


def test_changed_content_breaks_the_content_hash_only() -> None:
    signed = sign_event(message(), V12, "one.example", KEY) | {"content": {"body": "forged"}}
    verify_event_signature(signed, V12, "one.example", KEY.key_id, KEY.verify_key_base64)
    assert not content_hash_matches(signed)


@pytest.mark.parametrize("hashes", [None, [], {}, {"sha256": 1}, {"sha256": "é"}, {"sha256": "Zg"}])
def test_a_broken_content_hash_does_not_match(hashes: Any) -> None:
    assert not content_hash_matches(message(hashes=hashes))


def test_a_padded_content_hash_matches() -> None:
    assert content_hash_matches(message(hashes={"sha256": content_hash(message()) + "="}))


@given(objects, room_versions)
def test_countersigning_keeps_hashes_event_id_and_the_first_signature(
    content: dict[str, Any], rules: RoomVersion
) -> None:
    first = sign_event(message(content=content), rules, "one.example", KEY)
    second = countersign_event(first, rules, "two.example", OTHER_KEY)
    assert second["hashes"] == first["hashes"]
    assert event_id_of(second, rules) == event_id_of(first, rules)
    verify_event_signature(second, rules, "one.example", KEY.key_id, KEY.verify_key_base64)
    verify_event_signature(second, rules, "two.example", OTHER_KEY.key_id, OTHER_KEY.verify_key_base64)


def test_event_ids_of_the_room_versions() -> None:
    pdu = message(hashes={"sha256": "x"}, unsigned={"age": 3}, signatures={"a": {}})
    covered = {key: pdu[key] for key in pdu if key not in ("unsigned", "signatures")} | {"content": {}}
    digest = hashlib.sha256(encode(covered)).digest()
    assert reference_hash(pdu, V3) == digest
    assert event_id_of(pdu, V1) == event_id_of(pdu, V2) == "$e:one.example"
    assert event_id_of(pdu, V3) == "$" + base64.b64encode(digest).decode().rstrip("=")
    assert event_id_of(pdu, V4) == event_id_of(pdu, V12)
    assert event_id_of(pdu, V4) == "$" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_the_senders_server_signs() -> None:
    for rules in ROOM_VERSIONS.values():
        assert required_signers(message(), rules) == {"one.example"}


def test_the_server_in_the_event_id_signs_in_v1_and_v2() -> None:
    pdu = message(event_id="$e:two.example")
    assert required_signers(pdu, V2) == {"one.example", "two.example"}
    assert required_signers(pdu, V3) == {"one.example"}


def test_a_third_party_invite_needs_no_signature_of_its_senders_server() -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {}}}
    invite = message(type="m.room.member", state_key="@bob:two.example", content=content)
    assert required_signers(invite, V12) == set()
    assert required_signers(invite | {"event_id": "$e:two.example"}, V1) == {"two.example"}
    assert required_signers(invite | {"content": content | {"membership": "join"}}, V12) == {"one.example"}
    assert required_signers(invite | {"type": "m.room.message"}, V12) == {"one.example"}


def test_the_authorising_server_signs_restricted_joins_since_v8() -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@carol:three.example"}
    join = message(type="m.room.member", state_key="@alice:one.example", content=content)
    assert required_signers(join, V7) == {"one.example"}
    assert required_signers(join, V8) == {"one.example", "three.example"}


@pytest.mark.parametrize("user_id", ["carol", "", None, 5, ["@carol:three.example"]])
def test_nobody_can_sign_for_an_authorising_user_without_a_server(user_id: Any) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": user_id}
    with pytest.raises(BadSignature):
        required_signers(message(type="m.room.member", content=content), V8)
