"""Logging in and out, and refreshing, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.protocol.e2e_keys import CrossSigningKey
from homeserver.storage import cross_signing
from tests.client_api.account_server import AccountServer

LOGIN: dict[str, Any] = {
    "type": "m.login.password",
    "identifier": {"type": "m.id.user", "user": "alice"},
    "password": "secret alice",
}


async def test_logging_in_on_a_device_of_ones_own(server: AccountServer) -> None:
    await server.user("alice")
    flows = [{"type": "m.login.password"}, {"type": "m.login.application_service"}]
    assert await server.call("GET", "/login") == (200, {"flows": flows})
    body = {**LOGIN, "device_id": "PHONE", "initial_device_display_name": "My phone"}
    status, reply = await server.call("POST", "/login", body)
    assert (status, reply["user_id"], reply["device_id"]) == (200, "@alice:a.org", "PHONE")
    assert reply["well_known"] == {"m.homeserver": {"base_url": "https://a.org"}}
    assert "refresh_token" not in reply
    _, device = await server.call("GET", "/devices/PHONE", token=reply["access_token"])
    assert device["display_name"] == "My phone"


async def test_logging_in_again_on_a_device_ends_its_first_session(server: AccountServer) -> None:
    first = await server.user("alice", device_id="PHONE")
    await server.call("GET", "/account/whoami", token=first)
    _, reply = await server.call("POST", "/login", {**LOGIN, "device_id": "PHONE"})
    assert await server.refused("GET", "/account/whoami", token=first) == (401, "M_UNKNOWN_TOKEN")
    assert (await server.call("GET", "/account/whoami", token=reply["access_token"]))[0] == 200


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "wrong"}, (403, "M_FORBIDDEN")),
        ({"identifier": {"type": "m.id.user", "user": "nobody"}}, (403, "M_FORBIDDEN")),
        ({"identifier": {"type": "m.id.user", "user": "@alice:b.org"}}, (403, "M_FORBIDDEN")),
        ({"identifier": {"type": "m.id.phone", "phone": "1"}}, (400, "M_INVALID_PARAM")),
        ({"identifier": None}, (400, "M_INVALID_PARAM")),
        ({"password": None}, (400, "M_MISSING_PARAM")),
        ({"type": "m.login.token"}, (400, "M_UNKNOWN")),
        ({"type": 5}, (400, "M_BAD_JSON")),
        ({"device_id": "x" * 300}, (400, "M_INVALID_PARAM")),
    ],
)
async def test_logins_that_are_refused(
    server: AccountServer, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    await server.user("alice")
    assert await server.refused("POST", "/login", {**LOGIN, **change}) == expected


@pytest.mark.parametrize("user", ["alice", "@alice:a.org", "Alice"])
async def test_the_user_may_be_named_in_several_ways(server: AccountServer, user: str) -> None:
    await server.user("alice")
    body = {"type": "m.login.password", "user": user, "password": "secret alice"}
    status, reply = await server.call("POST", "/login", body)
    assert (status, reply["user_id"]) == (200, "@alice:a.org")


async def test_requests_without_a_good_token_are_refused(server: AccountServer) -> None:
    assert await server.refused("GET", "/account/whoami") == (401, "M_MISSING_TOKEN")
    assert await server.refused("GET", "/account/whoami", token="x") == (401, "M_UNKNOWN_TOKEN")


async def test_logging_out_deletes_the_device_and_only_that(server: AccountServer) -> None:
    phone, laptop = await server.user("alice", device_id="PHONE"), await server.user("alice", device_id="LAP")
    await server.call("GET", "/account/whoami", token=phone)
    assert await server.call("POST", "/logout", token=phone) == (200, {})
    assert await server.refused("GET", "/account/whoami", token=phone) == (401, "M_UNKNOWN_TOKEN")
    _, reply = await server.call("GET", "/devices", token=laptop)
    assert [device["device_id"] for device in reply["devices"]] == ["LAP"]
    assert server.witness.devices[-1] == ("@alice:a.org", [], ["PHONE"])


async def test_logging_out_everywhere_spares_other_users(server: AccountServer) -> None:
    tokens = [await server.user("alice") for _ in range(2)]
    bob = await server.user("bob")
    assert (await server.call("POST", "/logout/all", token=tokens[0]))[0] == 200
    for token in tokens:
        assert await server.refused("GET", "/account/whoami", token=token) == (401, "M_UNKNOWN_TOKEN")
    assert (await server.call("GET", "/account/whoami", token=bob))[0] == 200


async def refreshable(server: AccountServer) -> Any:
    await server.user("alice")
    _, reply = await server.call("POST", "/login", {**LOGIN, "refresh_token": True})
    return reply


async def refresh(server: AccountServer, token: str) -> tuple[int, Any]:
    return await server.call("POST", "/refresh", {"refresh_token": token})


async def works(server: AccountServer, access_token: str) -> bool:
    status, _ = await server.call("GET", "/account/whoami", token=access_token)
    return status == 200


async def test_an_expired_token_is_a_soft_logout_until_it_is_refreshed(server: AccountServer) -> None:
    login = await refreshable(server)
    assert await works(server, login["access_token"])
    server.clock.advance(login["expires_in_ms"] / 1000)
    status, reply = await server.call("GET", "/account/whoami", token=login["access_token"])
    assert (status, reply["errcode"], reply["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", True)
    _, refreshed = await refresh(server, login["refresh_token"])
    assert await works(server, refreshed["access_token"])


async def test_the_old_tokens_end_with_the_first_use_of_the_new(server: AccountServer) -> None:
    login = await refreshable(server)
    _, refreshed = await refresh(server, login["refresh_token"])
    assert await works(server, login["access_token"])
    assert await works(server, refreshed["access_token"])
    assert not await works(server, login["access_token"])
    assert (await refresh(server, login["refresh_token"]))[0] == 401


async def test_a_refresh_whose_reply_was_lost_can_be_repeated(server: AccountServer) -> None:
    login = await refreshable(server)
    _, lost = await refresh(server, login["refresh_token"])
    status, again = await refresh(server, login["refresh_token"])
    assert status == 200
    assert not await works(server, lost["access_token"])
    assert await works(server, again["access_token"])


async def test_using_the_new_refresh_token_ends_the_old_one(server: AccountServer) -> None:
    login = await refreshable(server)
    _, second = await refresh(server, login["refresh_token"])
    _, third = await refresh(server, second["refresh_token"])
    assert (await refresh(server, login["refresh_token"]))[0] == 401
    assert not await works(server, login["access_token"])
    assert await works(server, third["access_token"])


async def test_a_refresh_token_ends_with_its_device(server: AccountServer) -> None:
    login = await refreshable(server)
    await server.call("POST", "/logout", token=login["access_token"])
    assert (await refresh(server, login["refresh_token"]))[0] == 401
    assert await server.refused("POST", "/refresh", {}) == (400, "M_BAD_JSON")


async def test_a_device_is_not_called_like_a_key_that_signs_for_its_user(server: AccountServer) -> None:
    await server.user("alice")
    key = CrossSigningKey("master", "aKeyInBase64", {})
    await server.db.write(lambda tx: cross_signing.put(tx, "@alice:a.org", [key]))
    body = {**LOGIN, "device_id": "aKeyInBase64"}
    assert await server.refused("POST", "/login", body) == (403, "M_FORBIDDEN")
    assert (await server.call("POST", "/login", {**body, "device_id": "aKey"}))[0] == 200
