"""Rules on keys for end-to-end encryption."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.e2e_keys import (
    BadKey,
    DeviceUpdate,
    Signature,
    Verdict,
    check_device_keys,
    check_one_time_key,
    cross_signing_key,
    device_update,
    ed25519_key_of,
    is_signed,
    judge,
    key_json,
    same_key,
    shown_to,
    split_key_id,
    with_signatures,
    without_signatures,
)
from tests.identities import Device, Identity
from tests.protocol.json_values import json_values

ALICE, BOB = "@alice:here.example", "@bob:elsewhere.example"


@given(changes=st.integers(1, 30), lost=st.sets(st.integers(1, 30)), fetched_at=st.integers(0, 30))
def test_a_lost_update_is_always_noticed_by_the_next(changes: int, lost: set[int], fetched_at: int) -> None:
    known = fetched_at = min(fetched_at, changes)
    seen = set(range(1, fetched_at + 1))
    for stream_id in range(1, changes + 1):
        if stream_id in lost:
            continue
        update = DeviceUpdate(ALICE, "PHONE", stream_id, (stream_id - 1,) if stream_id > 1 else ())
        verdict = judge(known, update)
        missing = set(range(1, stream_id)) - seen
        if stream_id in seen:
            assert verdict is Verdict.SEEN
        elif missing:
            assert verdict is Verdict.GAP
            seen |= set(range(1, stream_id + 1))  # fetched anew
            known = stream_id
        else:
            assert verdict is Verdict.APPLY
            seen.add(stream_id)
            known = stream_id


def test_an_update_may_follow_upon_several() -> None:
    assert judge(7, DeviceUpdate(ALICE, "PHONE", 9, (6, 7))) is Verdict.APPLY
    assert judge(7, DeviceUpdate(ALICE, "PHONE", 9, (7, 8))) is Verdict.GAP
    assert judge(7, DeviceUpdate(ALICE, "PHONE", 9)) is Verdict.APPLY


def test_device_keys_are_kept_as_they_were_signed() -> None:
    device = Device(ALICE, "PHONE")
    keys = device.keys(unsigned={"x": 1}, other={"y": [1]})
    del keys["unsigned"]
    text = check_device_keys({**keys, "unsigned": {"device_display_name": "mine"}}, ALICE, "PHONE")
    assert text == key_json(keys)
    key_id, key = ed25519_key_of(keys) or ("", "")
    assert is_signed(keys, ALICE, key_id, key)
    assert not is_signed({**keys, "algorithms": []}, ALICE, key_id, key)


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": BOB},
        {"device_id": "TABLET"},
        {"algorithms": None},
        {"algorithms": [1]},
        {"keys": ["x"]},
        {"keys": {"ed25519:PHONE": 1}},
        {"signatures": {ALICE: {"ed25519:PHONE": 1}}},
        {"signatures": []},
        {"x": 1.5},
        {"x": 2**60},
        {"x": "y" * 70_000},
    ],
)
def test_device_keys_of_another_shape_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadKey):
        check_device_keys({**Device(ALICE, "PHONE").keys(), **changed}, ALICE, "PHONE")


@given(json_values)
def test_any_value_is_a_key_or_is_refused(value: Any) -> None:
    for check in (
        check_one_time_key,
        lambda key: check_device_keys({"user_id": ALICE, "device_id": "D", "keys": key}, ALICE, "D"),
        lambda key: cross_signing_key(key, ALICE, "master"),
        lambda key: device_update(key if isinstance(key, dict) else {"user_id": key}),
    ):
        with suppress(BadKey):
            check(value)


@pytest.mark.parametrize("name", ["", "x", ":", "x:", ":y", "x:" + "y" * 300, "x:\x00"])
def test_names_that_are_no_key_ids(name: str) -> None:
    with pytest.raises(BadKey):
        split_key_id(name)


def test_one_key_signed_twice_is_one_key() -> None:
    key = {"key": "abc", "signatures": {ALICE: {"ed25519:PHONE": "x"}}}
    assert same_key(key, {"key": "abc", "signatures": {ALICE: {"ed25519:PHONE": "y"}}})
    assert not same_key(key, {**key, "key": "abd"})
    assert not same_key(key, "abc")


def test_cross_signing_keys_carry_their_owners_signatures_only() -> None:
    identity = Identity(ALICE)
    content = identity.key("self_signing")
    content["signatures"][BOB] = {"ed25519:x": "y"}
    key = cross_signing_key(content, ALICE, "self_signing")
    assert key.public_key == identity.public_key("self_signing")
    assert set(key.content["signatures"]) == {ALICE}
    assert is_signed(key.content, ALICE, identity.keys["master"].key_id, identity.public_key("master"))


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": BOB},
        {"usage": ["self_signing"]},
        {"usage": "master"},
        {"keys": {}},
        {"keys": {"ed25519:a": "a", "ed25519:b": "b"}},
        {"keys": {"ed25519:a": "b"}},
        {"keys": {"curve25519:a": "a"}},
        {"signatures": {ALICE: 1}},
    ],
)
def test_cross_signing_keys_of_another_shape_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadKey):
        cross_signing_key({**Identity(ALICE).key("master"), **changed}, ALICE, "master")


users = st.sampled_from([ALICE, BOB, "@carol:x"])


@given(
    st.lists(st.builds(Signature, users, st.just("KEY"), users, st.text(max_size=3), st.text(max_size=3))),
    users,
)
def test_nobody_sees_whom_others_have_verified(signatures: list[Signature], reader: str) -> None:
    for who in (reader, None):
        shown = shown_to(signatures, who)
        assert all(each.signer in (each.target_user, who) for each in shown)
    key = {"keys": {"ed25519:KEY": "KEY"}, "signatures": {ALICE: {"ed25519:x": "y"}}}
    added = with_signatures(key, signatures)
    assert without_signatures(added) == without_signatures(key)
    assert {each.signer for each in signatures} | {ALICE} == set(added["signatures"])


def test_an_update_is_read_with_all_it_says() -> None:
    keys = Device(ALICE, "PHONE").keys()
    content = {
        "user_id": ALICE,
        "device_id": "PHONE",
        "stream_id": 4,
        "prev_id": [3],
        "keys": keys,
        "device_display_name": "Phone",
    }
    update = device_update(content)
    assert update == DeviceUpdate(ALICE, "PHONE", 4, (3,), False, key_json(keys), "Phone")
    assert device_update({**content, "deleted": True}).keys is None
    for wrong in ({"stream_id": "4"}, {"stream_id": True}, {"prev_id": [None]}, {"device_id": ""}):
        with pytest.raises(BadKey):
            device_update({**content, **wrong})
