"""Dehydrated devices over HTTP: kept by one login, used by the next."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.client_api.account_server import AccountServer, password_auth
from tests.client_api.person import CURVE, Person
from tests.identities import Device

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DATA = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "p", "nonce": "n"}


def upload(user_id: str, device_id: str, *numbers: int) -> dict[str, Any]:
    """The body by which a client leaves a device behind."""
    device = Device(user_id, device_id)
    return {
        "device_id": device_id,
        "device_data": DATA,
        "device_keys": device.keys(dehydrated=True),
        "one_time_keys": device.one_time_keys(*numbers),
        "fallback_keys": device.fallback_key(1),
        "initial_device_display_name": "Dehydrated",
    }


async def tell(sender: Person, receiver: Person, device_id: str, number: int) -> None:
    messages = {receiver.user_id: {device_id: {"number": number}}}
    await sender.call("PUT", f"/sendToDevice/m.test/t{number}", {"messages": messages})


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["content"]["number"] for event in events]


async def test_a_device_that_is_left_behind_is_there_for_the_next_login(alice: Person) -> None:
    assert await alice.server.refused("GET", PATH, token=alice.token) == (404, "M_NOT_FOUND")

    body = upload(alice.user_id, "DRY/+", 1)
    assert await alice.call("PUT", PATH, body) == {"device_id": "DRY/+"}
    assert await alice.call("GET", PATH) == {"device_id": "DRY/+", "device_data": DATA}
    assert await alice.call("DELETE", PATH) == {"device_id": "DRY/+"}
    assert await alice.server.refused("GET", PATH, token=alice.token) == (404, "M_NOT_FOUND")
    assert await alice.server.refused("DELETE", PATH, token=alice.token) == (404, "M_NOT_FOUND")


async def test_others_see_it_and_claim_its_keys_like_any_device(alice: Person, bob: Person) -> None:
    body = upload(alice.user_id, "DRY", 1)
    since = (await alice.sync())["next_batch"]
    await alice.call("PUT", PATH, body)

    found = (await bob.query(alice.user_id))["device_keys"][alice.user_id]["DRY"]
    assert found["dehydrated"] is True
    assert found["unsigned"] == {"device_display_name": "Dehydrated"}
    assert list(await bob.claim(alice.user_id, "DRY")) == [f"{CURVE}:KEY1"]
    assert list(await bob.claim(alice.user_id, "DRY")) == [f"{CURVE}:FALLBACK1"]
    assert (await alice.sync(since))["device_lists"]["changed"] == [alice.user_id]
    assert (await alice.call("GET", "/devices/DRY"))["display_name"] == "Dehydrated"


async def test_its_messages_stay_however_often_they_are_fetched(alice: Person, bob: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY/+"))
    for number in range(250):
        await tell(bob, alice, "DRY/+" if number % 2 else "*", number)
    events = f"{PATH}/{quote('DRY/+', safe='')}/events"

    for _ in range(2):
        first = await alice.call("GET", events)
        second = await alice.call("GET", f"{events}?from={first['next_batch']}")
        third = await alice.call("GET", f"{events}?from={second['next_batch']}")
        assert "next_batch" not in third
        assert [len(page["events"]) for page in (first, second, third)] == [100, 100, 50]
        assert numbers([*first["events"], *second["events"], *third["events"]]) == list(range(250))
    assert first["events"][0] == {"type": "m.test", "sender": bob.user_id, "content": {"number": 0}}


async def test_older_clients_ask_until_there_is_nothing_more(alice: Person, bob: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))
    for number in range(3):
        await tell(bob, alice, "DRY", number)

    first = await alice.call("POST", f"{PATH}/DRY/events", {})
    assert numbers(first["events"]) == [0, 1, 2]
    last = await alice.call("POST", f"{PATH}/DRY/events", {"next_batch": first["next_batch"]})
    assert last["events"] == []


async def test_a_new_one_takes_the_place_of_the_old_with_all_it_had(alice: Person, bob: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY", 1))
    await tell(bob, alice, "DRY", 1)
    await alice.call("PUT", PATH, upload(alice.user_id, "DRIER", 1))

    assert list((await bob.query(alice.user_id))["device_keys"][alice.user_id]) == ["DRIER"]
    assert await alice.server.refused("GET", f"{PATH}/DRY/events", token=alice.token) == (403, "M_FORBIDDEN")
    assert (await alice.call("GET", f"{PATH}/DRIER/events")) == {"events": []}
    await tell(bob, alice, "DRIER", 2)
    await alice.call("PUT", PATH, upload(alice.user_id, "DRIER", 1))
    assert (await alice.call("GET", f"{PATH}/DRIER/events")) == {"events": []}
    assert list(await bob.claim(alice.user_id, "DRIER")) == [f"{CURVE}:KEY1"]
    assert {device["device_id"] for device in (await alice.call("GET", "/devices"))["devices"]} == {
        "PHONE",
        "DRIER",
    }


async def test_it_goes_like_any_device_with_the_owners_password_or_logout(alice: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))
    await alice.call("POST", "/delete_devices", {"devices": ["DRY"], "auth": password_auth("alice")})
    assert await alice.server.refused("GET", PATH, token=alice.token) == (404, "M_NOT_FOUND")

    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))
    await alice.call("POST", "/logout/all")
    again = await Person.arrives(alice.server, "alice", "NEW")
    assert await alice.server.refused("GET", PATH, token=again.token) == (404, "M_NOT_FOUND")


async def test_it_outlives_the_login_that_made_it(alice: Person, bob: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))
    await alice.call("POST", "/logout")
    await tell(bob, alice, "DRY", 1)
    again = await Person.arrives(alice.server, "alice", "NEW")

    assert (await again.call("GET", PATH))["device_id"] == "DRY"
    assert numbers((await again.call("GET", f"{PATH}/DRY/events"))["events"]) == [1]


async def test_nobody_reads_the_messages_of_another_device(alice: Person, bob: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))

    for person, device_id in ((alice, "PHONE"), (bob, "DRY"), (bob, "PHONE")):
        refused = await person.server.refused("GET", f"{PATH}/{device_id}/events", token=person.token)
        assert refused == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"device_id": "PHONE", "device_keys": None}, (400, "M_BAD_JSON")),
        ({"device_keys": Device("@alice:a.org", "OTHER").keys()}, (400, "M_BAD_JSON")),
        ({"device_data": {"no": "algorithm"}}, (400, "M_BAD_JSON")),
        ({"device_data": {"algorithm": "a", "x": "x" * 70_000}}, (413, "M_TOO_LARGE")),
        ({"device_id": "", "device_keys": Device("@alice:a.org", "").keys()}, (400, "M_BAD_JSON")),
        ({"one_time_keys": {"nothing": "x"}}, (400, "M_BAD_JSON")),
    ],
)
async def test_what_is_no_device_is_refused_and_the_old_one_stays(
    alice: Person, wrong: dict[str, Any], answer: tuple[int, str]
) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "OLD"))
    body = {**upload(alice.user_id, "DRY"), **wrong}

    assert await alice.server.refused("PUT", PATH, body, token=alice.token) == answer
    assert (await alice.call("GET", PATH))["device_id"] == "OLD"


async def test_a_device_in_use_is_not_taken_for_a_dehydrated_one(alice: Person) -> None:
    body = upload(alice.user_id, "PHONE")

    assert await alice.server.refused("PUT", PATH, body, token=alice.token) == (400, "M_INVALID_PARAM")
    assert (await alice.call("GET", "/devices/PHONE"))["device_id"] == "PHONE"


async def test_no_dehydrated_device_is_named_like_a_cross_signing_key(alice: Person) -> None:
    await alice.cross_sign()
    body = upload(alice.user_id, alice.identity.public_key("master"))

    assert await alice.server.refused("PUT", PATH, body, token=alice.token) == (403, "M_FORBIDDEN")


async def test_tokens_of_messages_have_to_be_tokens(alice: Person) -> None:
    await alice.call("PUT", PATH, upload(alice.user_id, "DRY"))
    for token in ("x", "-1", "1" * 19):
        refused = await alice.server.refused("GET", f"{PATH}/DRY/events?from={token}", token=alice.token)
        assert refused == (400, "M_INVALID_PARAM")


async def test_clients_are_told_that_it_can_be_done(server: AccountServer) -> None:
    _, versions = await server.call("GET", "/_matrix/client/versions")
    assert versions["unstable_features"]["org.matrix.msc3814"] is True
