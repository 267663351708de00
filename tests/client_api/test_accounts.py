"""Registering, changing one's password and leaving, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.storage import registration_tokens
from homeserver.storage.database import Database
from homeserver.users.registration import RegistrationMode
from tests.client_api.account_server import AccountServer, account_server, password_auth

DUMMY = {"type": "m.login.dummy"}
ALICE: dict[str, Any] = {"username": "alice", "password": "secret alice"}


async def test_registering_takes_a_dummy_stage_and_logs_in(server: AccountServer) -> None:
    status, needed = await server.call("POST", "/register", ALICE)
    assert (status, needed["flows"]) == (401, [{"stages": ["m.login.dummy"]}])
    assert "errcode" not in needed
    status, reply = await server.call(
        "POST", "/register", {**ALICE, "auth": {**DUMMY, "session": needed["session"]}}
    )
    assert (status, reply["user_id"]) == (200, "@alice:a.org")
    whoami = await server.call("GET", "/account/whoami", token=reply["access_token"])
    expected = {"user_id": "@alice:a.org", "device_id": reply["device_id"], "is_guest": False}
    assert whoami == (200, expected)
    assert server.witness.devices == [("@alice:a.org", [reply["device_id"]], [])]


async def test_the_flows_may_be_asked_for_before_the_name_is_chosen(server: AccountServer) -> None:
    _, needed = await server.call("POST", "/register", {})
    auth = {**DUMMY, "session": needed["session"]}
    status, _ = await server.call("POST", "/register", {**ALICE, "auth": auth})
    assert status == 200


async def test_one_request_is_enough_when_it_brings_its_auth(server: AccountServer) -> None:
    body = {**ALICE, "auth": DUMMY, "inhibit_login": True}
    assert await server.call("POST", "/register", body) == (200, {"user_id": "@alice:a.org"})


async def test_a_name_is_made_small_or_chosen_by_the_server(server: AccountServer) -> None:
    _, reply = await server.call("POST", "/register", {**ALICE, "username": "ALICE", "auth": DUMMY})
    assert reply["user_id"] == "@alice:a.org"
    _, reply = await server.call("POST", "/register", {"password": "long enough", "auth": DUMMY})
    assert reply["user_id"].endswith(":a.org")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"username": "älice"}, (400, "M_INVALID_USERNAME")),
        ({"username": "a b"}, (400, "M_INVALID_USERNAME")),
        ({"username": ""}, (400, "M_INVALID_USERNAME")),
        ({"username": "x" * 250}, (400, "M_INVALID_USERNAME")),
        ({"username": 1}, (400, "M_BAD_JSON")),
        ({"username": "taken"}, (400, "M_USER_IN_USE")),
        ({"password": "short"}, (400, "M_WEAK_PASSWORD")),
        ({"password": "x" * 600}, (400, "M_INVALID_PARAM")),
        ({"password": None}, (400, "M_MISSING_PARAM")),
        ({"auth": 1}, (400, "M_BAD_JSON")),
        ({"device_id": ""}, (400, "M_INVALID_PARAM")),
    ],
)
async def test_registrations_that_are_refused(
    server: AccountServer, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    await server.user("taken")
    assert await server.refused("POST", "/register", {**ALICE, "auth": DUMMY, **change}) == expected


async def test_a_bad_name_is_refused_before_authentication(server: AccountServer) -> None:
    assert await server.refused("POST", "/register", {"username": "a b"}) == (400, "M_INVALID_USERNAME")


async def test_guests_are_not_served(server: AccountServer) -> None:
    assert await server.refused("POST", "/register?kind=guest", {}) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert await server.refused("POST", "/register?kind=robot", {}) == (400, "M_INVALID_PARAM")


async def test_of_many_who_register_a_name_at_once_one_gets_it(server: AccountServer) -> None:
    replies = await asyncio.gather(
        *(server.call("POST", "/register", {**ALICE, "auth": DUMMY}) for _ in range(5))
    )
    assert sorted(status for status, _ in replies) == [200, 400, 400, 400, 400]


async def test_whether_a_name_is_available(server: AccountServer) -> None:
    assert await server.call("GET", "/register/available?username=bob") == (200, {"available": True})
    await server.user("bob")
    assert await server.refused("GET", "/register/available?username=bob") == (400, "M_USER_IN_USE")
    assert await server.refused("GET", "/register/available?username=b%20b") == (400, "M_INVALID_USERNAME")
    assert await server.refused("GET", "/register/available") == (400, "M_MISSING_PARAM")


VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity?token="


async def test_closed_registration(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, RegistrationMode.CLOSED) as server:
        assert await server.refused("POST", "/register", ALICE) == (403, "M_FORBIDDEN")
        assert await server.refused("GET", f"{VALIDITY}x") == (403, "M_FORBIDDEN")


async def test_registration_with_tokens(sqlite_database: Database) -> None:
    await sqlite_database.write(lambda tx: registration_tokens.add(tx, "once", uses_allowed=1))
    async with account_server(sqlite_database, RegistrationMode.TOKEN, ["always"]) as server:

        async def register(name: str, token: str) -> int:
            auth = {"type": "m.login.registration_token", "token": token}
            body = {"username": name, "password": "long enough", "auth": auth}
            status, _ = await server.call("POST", "/register", body)
            return status

        assert await server.call("GET", f"{VALIDITY}once") == (200, {"valid": True})
        assert await register("no", "never") == 401
        assert [await register("one", "once"), await register("two", "once")] == [200, 401]
        assert [await register("three", "always"), await register("four", "always")] == [200, 200]
        assert await server.call("GET", f"{VALIDITY}once") == (200, {"valid": False})
        assert await server.refused("GET", f"{VALIDITY}{'x' * 65}") == (400, "M_INVALID_PARAM")
        assert await server.refused("POST", "/register", {**ALICE, "auth": DUMMY}) == (401, "M_UNRECOGNIZED")


async def test_a_token_for_one_use_makes_one_account_however_many_try(sqlite_database: Database) -> None:
    await sqlite_database.write(lambda tx: registration_tokens.add(tx, "once", uses_allowed=1))
    async with account_server(sqlite_database, RegistrationMode.TOKEN) as server:
        auth = {"type": "m.login.registration_token", "token": "once"}
        bodies = [{"username": f"u{i}", "password": "long enough", "auth": auth} for i in range(5)]
        replies = await asyncio.gather(*(server.call("POST", "/register", body) for body in bodies))
    assert [status for status, _ in replies].count(200) == 1
    assert {reply["errcode"] for status, reply in replies if status != 200} <= {
        "M_FORBIDDEN",
        "M_UNAUTHORIZED",
    }


async def test_changing_the_password_ends_the_other_sessions(server: AccountServer) -> None:
    here, elsewhere = await server.user("alice"), await server.user("alice")
    body = {"new_password": "secret number two"}
    status, needed = await server.call("POST", "/account/password", body, token=here)
    assert (status, needed["flows"]) == (401, [{"stages": ["m.login.password"]}])
    auth = password_auth("alice", needed["session"])
    assert (await server.call("POST", "/account/password", {**body, "auth": auth}, token=here))[0] == 200
    assert (await server.call("GET", "/account/whoami", token=here))[0] == 200
    assert await server.refused("GET", "/account/whoami", token=elsewhere) == (401, "M_UNKNOWN_TOKEN")
    login = {"type": "m.login.password", "user": "alice"}
    assert await server.refused("POST", "/login", {**login, "password": "secret alice"}) == (
        403,
        "M_FORBIDDEN",
    )
    assert (await server.call("POST", "/login", {**login, "password": "secret number two"}))[0] == 200


async def test_other_sessions_are_kept_when_asked_for(server: AccountServer) -> None:
    here, elsewhere = await server.user("alice"), await server.user("alice")
    body = {"new_password": "secret number two", "logout_devices": False, "auth": password_auth("alice")}
    assert (await server.call("POST", "/account/password", body, token=here))[0] == 200
    assert (await server.call("GET", "/account/whoami", token=elsewhere))[0] == 200


async def test_weak_passwords_are_refused_before_authentication(server: AccountServer) -> None:
    token = await server.user("alice")
    body = {"new_password": "short"}
    assert await server.refused("POST", "/account/password", body, token=token) == (400, "M_WEAK_PASSWORD")


async def test_a_deactivated_account_is_gone_but_its_name_stays_taken(server: AccountServer) -> None:
    token, bob = await server.user("alice"), await server.user("bob")
    _, room = await server.call("POST", "/createRoom", {"preset": "public_chat"}, token=token)
    assert await server.call("POST", f"/join/{room['room_id']}", {}, token=bob) == (200, room)
    await server.call("PUT", "/profile/@alice:a.org/displayname", {"displayname": "Alice"}, token=token)
    body = {"auth": password_auth("alice"), "erase": True}
    assert await server.call("POST", "/account/deactivate", body, token=token) == (
        200,
        {"id_server_unbind_result": "success"},
    )
    _, members = await server.call("GET", f"/rooms/{room['room_id']}/joined_members", token=bob)
    assert list(members["joined"]) == ["@bob:a.org"]
    assert await server.refused("GET", "/account/whoami", token=token) == (401, "M_UNKNOWN_TOKEN")
    login = {"type": "m.login.password", "user": "alice", "password": "secret alice"}
    assert await server.refused("POST", "/login", login) == (403, "M_FORBIDDEN")
    assert await server.refused("POST", "/register", {**ALICE, "auth": DUMMY}) == (400, "M_USER_IN_USE")
    assert await server.refused("GET", "/profile/@alice:a.org") == (404, "M_NOT_FOUND")


async def test_nobody_can_deactivate_another(server: AccountServer) -> None:
    await server.user("alice")
    bob = await server.user("bob")
    status, reply = await server.call(
        "POST", "/account/deactivate", {"auth": password_auth("alice")}, token=bob
    )
    assert (status, reply["errcode"]) == (401, "M_FORBIDDEN")
    assert await server.accounts.is_active("@alice:a.org")


async def test_third_party_identifiers_are_not_kept(server: AccountServer) -> None:
    token = await server.user("alice")
    assert await server.call("GET", "/account/3pid", token=token) == (200, {"threepids": []})
    assert await server.refused("POST", "/account/3pid/add", {}, token=token) == (403, "M_THREEPID_DENIED")
