"""Keys for end-to-end encryption over HTTP: a server alone, its people and their devices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.errors import MatrixError
from tests.client_api.account_server import AccountServer, password_auth
from tests.client_api.person import CURVE, Person
from tests.identities import Device, Identity, only_new_signatures

ALICE, BOB = "@alice:a.org", "@bob:a.org"


async def share_a_room(alice: Person, bob: Person) -> str:
    room_id: str = (await alice.call("POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
    await bob.call("POST", f"/join/{room_id}")
    return room_id


async def test_device_keys_are_found_with_the_name_of_the_device(alice: Person, bob: Person) -> None:
    keys = alice.device.keys()
    assert await alice.upload(device_keys=keys) == {CURVE: 0}
    await alice.call("PUT", "/devices/PHONE", {"display_name": "My phone"})
    found = await bob.query(ALICE, BOB, "@nobody:a.org", "what?")
    named = {**keys, "unsigned": {"device_display_name": "My phone"}}
    assert found["device_keys"] == {ALICE: {"PHONE": named}, BOB: {}}
    assert found["failures"] == {}
    chosen = await bob.call("POST", "/keys/query", {"device_keys": {ALICE: ["TABLET"]}})
    assert chosen["device_keys"] == {ALICE: {}}


@pytest.mark.parametrize(
    "body",
    [
        {"device_keys": {"user_id": ALICE, "device_id": "PHONE"}},
        {"device_keys": {**Device(BOB, "PHONE").keys()}},
        {"device_keys": {**Device(ALICE, "TABLET").keys()}},
        {"one_time_keys": {"no-algorithm": "x"}},
        {"one_time_keys": {f"{CURVE}:x": 1}},
        {"one_time_keys": {f"{CURVE}:x": {"signatures": {}}}},
        {"fallback_keys": []},
    ],
)
async def test_uploads_of_another_shape_are_refused(alice: Person, body: dict[str, Any]) -> None:
    assert await alice.refused("/keys/upload", body) == (400, "M_BAD_JSON")


async def test_a_repeated_upload_changes_nothing_and_another_key_is_no_repetition(alice: Person) -> None:
    assert await alice.upload(one_time_keys=alice.device.one_time_keys(1, 2, 3)) == {CURVE: 3}
    assert await alice.upload(one_time_keys=alice.device.one_time_keys(2, 3, 4)) == {CURVE: 4}
    other = {f"{CURVE}:KEY1": alice.device.sign({"key": "another"})}
    assert await alice.refused("/keys/upload", {"one_time_keys": other}) == (400, "M_UNKNOWN")
    assert await alice.upload() == {CURVE: 4}


async def test_too_many_keys_are_refused(alice: Person) -> None:
    keys = alice.device.one_time_keys(*range(600))
    await alice.upload(one_time_keys=keys)
    more = alice.device.one_time_keys(*range(600, 1200))
    assert await alice.refused("/keys/upload", {"one_time_keys": more}) == (413, "M_TOO_LARGE")


async def test_one_time_keys_are_given_out_in_order_and_then_the_fallback_key(
    alice: Person, bob: Person
) -> None:
    first, second = alice.device.one_time_keys(2), alice.device.one_time_keys(1)
    fallback = alice.device.fallback_key(1)
    await alice.upload(one_time_keys=first, fallback_keys=fallback)
    await alice.upload(one_time_keys=second)
    synced = await alice.sync()
    assert synced["device_one_time_keys_count"] == {CURVE: 2}
    assert synced["device_unused_fallback_key_types"] == [CURVE]
    assert [await bob.claim(ALICE, "PHONE") for _ in range(4)] == [first, second, fallback, fallback]
    assert await bob.claim(ALICE, "TABLET") == {}
    synced = await alice.sync()
    assert synced["device_one_time_keys_count"] == {CURVE: 0}
    assert synced["device_unused_fallback_key_types"] == []
    await alice.upload(fallback_keys=fallback)
    assert (await alice.sync())["device_unused_fallback_key_types"] == []
    await alice.upload(fallback_keys=alice.device.fallback_key(2))
    assert (await alice.sync())["device_unused_fallback_key_types"] == [CURVE]


async def test_a_key_that_was_given_out_does_not_come_back_with_a_repeated_upload(
    alice: Person, bob: Person
) -> None:
    keys = alice.device.one_time_keys(1, 2)
    await alice.upload(one_time_keys=keys)
    given = await bob.claim(ALICE, "PHONE")
    assert await alice.upload(one_time_keys=keys) == {CURVE: 1}
    given |= await bob.claim(ALICE, "PHONE")
    assert given == keys
    # The id alone is free again: a device that was set up anew counts from the start.
    anew = {f"{CURVE}:KEY1": alice.device.sign({"key": "another"})}
    assert await alice.upload(one_time_keys=anew) == {CURVE: 1}


async def test_fifty_people_at_once_are_given_fifty_keys(alice: Person, bob: Person) -> None:
    keys = alice.device.one_time_keys(*range(50))
    await alice.upload(one_time_keys=keys)
    given = await asyncio.gather(*(bob.claim(ALICE, "PHONE") for _ in range(60)))
    found = [name for one in given for name in one]
    assert sorted(found) == sorted(keys)


async def test_malformed_questions_are_refused(alice: Person) -> None:
    odd = {"device_keys": {ALICE: {"PHONE": True}}}
    assert await alice.refused("/keys/query", odd) == (400, "M_BAD_JSON")
    assert await alice.refused("/keys/query", {}) == (400, "M_BAD_JSON")
    assert await alice.refused("/keys/claim", {"one_time_keys": {ALICE: {"PHONE": 1}}}) == (400, "M_BAD_JSON")
    many = {f"@user{number}:a.org": [] for number in range(10_001)}
    assert await alice.refused("/keys/query", {"device_keys": many}) == (413, "M_TOO_LARGE")


async def test_a_device_that_is_gone_takes_its_keys_along(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    await share_a_room(alice, bob)
    await alice.upload(device_keys=alice.device.keys(), one_time_keys=alice.device.one_time_keys(1))
    since = (await bob.sync())["next_batch"]
    tablet = await Person.arrives(server, "alice", "TABLET")
    await tablet.upload(device_keys=tablet.device.keys())
    await alice.call("POST", "/logout")
    news = await bob.sync(since)
    assert news["device_lists"] == {"changed": [ALICE], "left": []}
    assert set((await bob.query(ALICE))["device_keys"][ALICE]) == {"TABLET"}
    assert await bob.claim(ALICE, "PHONE") == {}
    changes = await bob.call("GET", f"/keys/changes?from={since}&to={news['next_batch']}")
    assert changes == {"changed": [ALICE], "left": []}
    assert (await bob.sync(news["next_batch"]))["device_lists"] == {"changed": [], "left": []}


async def test_a_waiting_sync_is_woken_by_new_keys(alice: Person, bob: Person) -> None:
    await share_a_room(alice, bob)
    since = (await bob.sync())["next_batch"]
    waiting = asyncio.create_task(bob.sync(since, timeout=20_000))
    await alice.upload(device_keys=alice.device.keys())
    assert (await asyncio.wait_for(waiting, 10))["device_lists"]["changed"] == [ALICE]


async def test_the_same_keys_again_are_no_news(alice: Person, bob: Person) -> None:
    await share_a_room(alice, bob)
    keys = alice.device.keys()
    await alice.upload(device_keys=keys)
    since = (await bob.sync())["next_batch"]
    await alice.upload(device_keys=keys, one_time_keys=alice.device.one_time_keys(1))
    assert (await bob.sync(since))["device_lists"]["changed"] == []


async def test_tokens_of_changes_have_to_be_tokens(alice: Person) -> None:
    for query in ("", "?from=x", "?from=x&to=y"):
        status, reply = await alice.server.call("GET", f"/keys/changes{query}", token=alice.token)
        assert (status, reply["errcode"]) in {(400, "M_MISSING_PARAM"), (400, "M_INVALID_PARAM")}


# Cross-signing


async def test_the_first_keys_need_no_password_and_others_do(alice: Person, bob: Person) -> None:
    await share_a_room(alice, bob)
    since = (await bob.sync())["next_batch"]
    path, body = "/keys/device_signing/upload", alice.identity.upload()
    await alice.call("POST", path, body)
    await alice.call("POST", path, body)
    found = await bob.query(ALICE)
    assert found["master_keys"][ALICE] == alice.identity.key("master")
    assert found["self_signing_keys"][ALICE] == alice.identity.key("self_signing")
    assert found["user_signing_keys"] == {}
    assert (await alice.query(ALICE))["user_signing_keys"] == {ALICE: alice.identity.key("user_signing")}
    assert (await bob.sync(since))["device_lists"]["changed"] == [ALICE]

    old = alice.identity.public_key("master")
    alice.identity = Identity(ALICE)
    status, reply = await alice.server.call("POST", path, alice.identity.upload(), token=alice.token)
    assert (status, reply["flows"]) == (401, [{"stages": ["m.login.password"]}])
    assert old in (await bob.query(ALICE))["master_keys"][ALICE]["keys"].values()
    auth = password_auth("alice", reply["session"])
    await alice.call("POST", path, {**alice.identity.upload(), "auth": auth})
    assert (await bob.query(ALICE))["master_keys"][ALICE] == alice.identity.key("master")


async def test_a_new_self_signing_key_needs_the_password_and_the_stored_master_key(alice: Person) -> None:
    await alice.cross_sign()
    alice.identity.renew("self_signing")
    body = {"self_signing_key": alice.identity.key("self_signing")}
    status, reply = await alice.server.call("POST", "/keys/device_signing/upload", body, token=alice.token)
    assert status == 401
    body["auth"] = password_auth("alice", reply["session"])
    await alice.call("POST", "/keys/device_signing/upload", body)
    assert (await alice.query(ALICE))["self_signing_keys"][ALICE] == alice.identity.key("self_signing")


async def test_cross_signing_keys_that_are_refused(alice: Person) -> None:
    path, stranger = "/keys/device_signing/upload", Identity(ALICE)
    assert await alice.refused(path, {}) == (400, "M_MISSING_PARAM")
    alone = {"self_signing_key": alice.identity.key("self_signing")}
    assert await alice.refused(path, alone) == (400, "M_MISSING_PARAM")
    forged = {**alice.identity.upload(), "self_signing_key": stranger.key("self_signing")}
    assert await alice.refused(path, forged) == (400, "M_INVALID_SIGNATURE")
    unsigned = alice.identity.key("user_signing")
    del unsigned["signatures"]
    assert await alice.refused(path, {**alice.identity.upload(), "user_signing_key": unsigned}) == (
        400,
        "M_INVALID_SIGNATURE",
    )
    assert await alice.refused(path, {"master_key": Identity(BOB).key("master")}) == (400, "M_INVALID_PARAM")
    like_a_device = {"user_id": ALICE, "usage": ["master"], "keys": {"ed25519:PHONE": "PHONE"}}
    assert await alice.refused(path, {"master_key": like_a_device}) == (403, "M_FORBIDDEN")


async def test_no_device_is_named_like_a_cross_signing_key(server: AccountServer, alice: Person) -> None:
    await alice.cross_sign()
    with pytest.raises(MatrixError) as refused:
        await Person.arrives(server, "alice", alice.identity.public_key("master"))
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_people_sign_their_devices_and_devices_the_master_key(alice: Person, bob: Person) -> None:
    await share_a_room(alice, bob)
    keys, master = alice.device.keys(), alice.identity.key("master")
    await alice.upload(device_keys=keys)
    await alice.cross_sign()
    since = (await bob.sync())["next_batch"]
    signed_device = alice.identity.sign(keys, "self_signing")
    signed_master = alice.device.sign(master)
    body = {
        ALICE: {
            "PHONE": only_new_signatures(keys, signed_device, ALICE),
            alice.identity.public_key("master"): only_new_signatures(master, signed_master, ALICE),
        }
    }
    assert await alice.call("POST", "/keys/signatures/upload", body) == {"failures": {}}
    found = await bob.query(ALICE)
    assert found["device_keys"][ALICE]["PHONE"]["signatures"] == signed_device["signatures"]
    assert found["master_keys"][ALICE]["signatures"] == signed_master["signatures"]
    assert (await bob.sync(since))["device_lists"]["changed"] == [ALICE]


async def test_only_who_verified_somebody_sees_that_they_did(alice: Person, bob: Person) -> None:
    await alice.cross_sign()
    await bob.cross_sign()
    since = (await alice.sync())["next_batch"]
    master = bob.identity.key("master")
    signed = alice.identity.sign(master, "user_signing")
    body = {BOB: {bob.identity.public_key("master"): signed}}
    assert await alice.call("POST", "/keys/signatures/upload", body) == {"failures": {}}
    assert (await alice.query(BOB))["master_keys"][BOB] == signed
    assert (await bob.query(BOB))["master_keys"][BOB] == master
    assert (await alice.sync(since))["device_lists"]["changed"] == [BOB]


async def test_each_signature_that_fails_is_named(alice: Person, bob: Person) -> None:
    await alice.upload(device_keys=alice.device.keys())
    await alice.cross_sign()
    await bob.cross_sign()
    stranger, keys = Identity(ALICE), alice.device.keys()
    bobs = bob.identity.public_key("master")
    body = {
        ALICE: {
            "PHONE": {
                **keys,
                "signatures": {ALICE: {alice.identity.keys["self_signing"].key_id: "nonsense"}},
            },
            "TABLET": keys,
            alice.identity.public_key("master"): stranger.key("master"),
        },
        BOB: {
            bobs: stranger.sign(bob.identity.key("master"), "user_signing"),
            "PHONE": bob.device.keys(),
        },
        "@nobody:a.org": {"x": 7},
    }
    failures = (await alice.call("POST", "/keys/signatures/upload", body))["failures"]
    codes = {(user, key): error["errcode"] for user, by in failures.items() for key, error in by.items()}
    assert codes == {
        (ALICE, "PHONE"): "M_INVALID_SIGNATURE",
        (ALICE, "TABLET"): "M_NOT_FOUND",
        (ALICE, alice.identity.public_key("master")): "M_INVALID_PARAM",
        (BOB, bobs): "M_INVALID_SIGNATURE",
        (BOB, "PHONE"): "M_NOT_FOUND",
        ("@nobody:a.org", "x"): "M_NOT_FOUND",
    }


async def test_what_a_replaced_key_signed_is_forgotten(alice: Person) -> None:
    keys = alice.device.keys()
    await alice.upload(device_keys=keys)
    await alice.cross_sign()
    signed = alice.identity.sign(keys, "self_signing")
    await alice.call("POST", "/keys/signatures/upload", {ALICE: {"PHONE": signed}})
    alice.identity = Identity(ALICE)
    path = "/keys/device_signing/upload"
    _, reply = await alice.server.call("POST", path, alice.identity.upload(), token=alice.token)
    auth = password_auth("alice", reply["session"])
    await alice.call("POST", path, {**alice.identity.upload(), "auth": auth})
    assert (await alice.query(ALICE))["device_keys"][ALICE]["PHONE"]["signatures"] == keys["signatures"]
