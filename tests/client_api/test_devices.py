"""Seeing, naming and removing devices, over HTTP."""

from __future__ import annotations

import pytest

from tests.client_api.account_server import AccountServer, password_auth


async def test_a_device_can_be_named(server: AccountServer) -> None:
    token = await server.user("alice", device_id="PHONE")
    assert (await server.call("PUT", "/devices/PHONE", {"display_name": "Phone"}, token=token))[0] == 200
    assert (await server.call("PUT", "/devices/PHONE", {}, token=token))[0] == 200
    _, device = await server.call("GET", "/devices/PHONE", token=token)
    assert (device["device_id"], device["display_name"]) == ("PHONE", "Phone")
    too_long = {"display_name": "x" * 101}
    assert await server.refused("PUT", "/devices/PHONE", too_long, token=token) == (400, "M_TOO_LARGE")


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_devices_of_others_are_unknown(server: AccountServer, method: str) -> None:
    await server.user("alice", device_id="PHONE")
    bob = await server.user("bob")
    body = {"display_name": "mine"} if method == "PUT" else None
    assert await server.refused(method, "/devices/PHONE", body, token=bob) == (404, "M_NOT_FOUND")


async def test_deleting_a_device_takes_the_password_and_ends_its_session(server: AccountServer) -> None:
    token, lost = await server.user("alice"), await server.user("alice", device_id="LOST")
    status, needed = await server.call("DELETE", "/devices/LOST", token=token)
    assert status == 401
    body = {"auth": password_auth("alice", needed["session"])}
    assert await server.call("DELETE", "/devices/LOST", body, token=token) == (200, {})
    assert await server.refused("GET", "/account/whoami", token=lost) == (401, "M_UNKNOWN_TOKEN")
    assert server.witness.devices[-1] == ("@alice:a.org", [], ["LOST"])


async def test_a_wrong_password_may_be_corrected_in_the_same_session(server: AccountServer) -> None:
    token = await server.user("alice", device_id="ONE")
    _, needed = await server.call("DELETE", "/devices/ONE", {}, token=token)
    wrong = {**password_auth("alice", needed["session"]), "password": "wrong"}
    status, reply = await server.call("DELETE", "/devices/ONE", {"auth": wrong}, token=token)
    assert (status, reply["errcode"], reply["session"]) == (401, "M_FORBIDDEN", needed["session"])
    right = {"auth": password_auth("alice", needed["session"])}
    assert (await server.call("DELETE", "/devices/ONE", right, token=token))[0] == 200


async def test_a_session_begun_for_one_device_does_not_delete_another(server: AccountServer) -> None:
    token = await server.user("alice")
    await server.user("alice", device_id="TWO")
    _, needed = await server.call("DELETE", "/devices/ONE", {}, token=token)
    body = {"auth": password_auth("alice", needed["session"])}
    assert await server.refused("DELETE", "/devices/TWO", body, token=token) == (403, "M_FORBIDDEN")
    assert (await server.call("GET", "/devices/TWO", token=token))[0] == 200


async def test_several_devices_are_deleted_at_once(server: AccountServer) -> None:
    token = await server.user("alice", device_id="HERE")
    for device_id in ("A", "B", "C"):
        await server.user("alice", device_id=device_id)
    body = {"devices": ["A", "B", "NONE"], "auth": password_auth("alice")}
    assert await server.call("POST", "/delete_devices", body, token=token) == (200, {})
    _, reply = await server.call("GET", "/devices", token=token)
    assert [device["device_id"] for device in reply["devices"]] == ["C", "HERE"]
    assert await server.refused("POST", "/delete_devices", {"devices": [1]}, token=token) == (
        400,
        "M_BAD_JSON",
    )


async def test_the_password_of_another_user_does_not_count(server: AccountServer) -> None:
    await server.user("alice")
    bob = await server.user("bob", device_id="BOB")
    body = {"auth": password_auth("alice")}
    assert await server.refused("DELETE", "/devices/BOB", body, token=bob) == (401, "M_FORBIDDEN")
