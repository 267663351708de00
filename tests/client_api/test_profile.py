"""Profiles over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.config.people import Profiles
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server

ALICE = "/profile/@alice:a.org"


async def test_name_and_avatar_are_public_and_passed_on_to_memberships(server: AccountServer) -> None:
    token = await server.user("alice")
    assert await server.call("GET", ALICE) == (200, {})
    assert await server.refused("GET", f"{ALICE}/displayname") == (404, "M_NOT_FOUND")
    await server.call("PUT", f"{ALICE}/displayname", {"displayname": "Alice"}, token=token)
    await server.call("PUT", f"{ALICE}/avatar_url", {"avatar_url": "mxc://a.org/x"}, token=token)
    assert await server.call("GET", ALICE) == (200, {"displayname": "Alice", "avatar_url": "mxc://a.org/x"})
    assert await server.call("GET", f"{ALICE}/displayname") == (200, {"displayname": "Alice"})
    assert server.witness.profiles == [
        ("@alice:a.org", "Alice", None),
        ("@alice:a.org", "Alice", "mxc://a.org/x"),
    ]


async def test_further_fields_hold_any_json_and_stay_out_of_memberships(server: AccountServer) -> None:
    token = await server.user("alice")
    value = {"deep": [1, None, "x"]}
    body = {"org.example.pronouns": value}
    assert await server.call("PUT", f"{ALICE}/org.example.pronouns", body, token=token) == (200, {})
    assert await server.call("PUT", f"{ALICE}/m.tz", {"m.tz": "Europe/Paris"}, token=token) == (200, {})
    assert await server.call("GET", ALICE) == (200, {"m.tz": "Europe/Paris", **body})
    assert await server.call("DELETE", f"{ALICE}/m.tz", token=token) == (200, {})
    assert await server.call("DELETE", f"{ALICE}/m.tz", token=token) == (200, {})
    assert await server.call("GET", ALICE) == (200, body)
    assert server.witness.profiles == []


async def test_an_empty_name_is_none(server: AccountServer) -> None:
    token = await server.user("alice")
    await server.call("PUT", f"{ALICE}/displayname", {"displayname": "Alice"}, token=token)
    await server.call("PUT", f"{ALICE}/displayname", {"displayname": ""}, token=token)
    assert await server.call("GET", ALICE) == (200, {})
    assert server.witness.profiles[-1] == ("@alice:a.org", None, None)


@pytest.mark.parametrize(
    ("field", "body", "expected"),
    [
        ("displayname", {"displayname": 1}, (400, "M_BAD_JSON")),
        ("displayname", {"displayname": "x" * 257}, (400, "M_INVALID_PARAM")),
        ("displayname", {"name": "x"}, (400, "M_MISSING_PARAM")),
        ("avatar_url", {"avatar_url": "https://a.org/x"}, (400, "M_INVALID_PARAM")),
        ("m.tz", {"m.tz": 1}, (400, "M_BAD_JSON")),
        ("pronouns", {"pronouns": "x"}, (400, "M_INVALID_PARAM")),
        ("Org.Example", {"Org.Example": "x"}, (400, "M_INVALID_PARAM")),
        ("a." + "x" * 255, {"a." + "x" * 255: 1}, (400, "M_KEY_TOO_LARGE")),
        ("org.big", {"org.big": "x" * 65_530}, (400, "M_PROFILE_TOO_LARGE")),
    ],
)
async def test_fields_that_are_refused(
    server: AccountServer, field: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    token = await server.user("alice")
    assert await server.refused("PUT", f"{ALICE}/{field}", body, token=token) == expected


async def test_the_bound_counts_all_fields_together(server: AccountServer) -> None:
    token = await server.user("alice")
    for name in ("org.one", "org.two"):
        status, _ = await server.call("PUT", f"{ALICE}/{name}", {name: "x" * 30_000}, token=token)
        assert status == 200
    body = {"org.three": "x" * 30_000}
    assert await server.refused("PUT", f"{ALICE}/org.three", body, token=token) == (
        400,
        "M_PROFILE_TOO_LARGE",
    )


async def test_the_profile_of_another_cannot_be_changed(server: AccountServer) -> None:
    await server.user("alice")
    bob = await server.user("bob")
    path = f"{ALICE}/displayname"
    assert await server.refused("PUT", path, {"displayname": "x"}, token=bob) == (403, "M_FORBIDDEN")
    assert await server.refused("DELETE", path, token=bob) == (403, "M_FORBIDDEN")


async def test_other_servers_are_asked_for_their_users(server: AccountServer) -> None:
    expected = {"displayname": "@carol:b.org at b.org"}
    assert await server.call("GET", "/profile/@carol:b.org") == (200, expected)
    assert await server.call("GET", "/profile/@carol:b.org/displayname") == (200, expected)
    assert await server.refused("GET", "/profile/@carol:b.org/m.tz") == (404, "M_NOT_FOUND")
    assert await server.refused("GET", "/profile/@carol:b.org/avatar_url") == (404, "M_NOT_FOUND")
    assert await server.refused("GET", "/profile/@nobody:a.org") == (404, "M_NOT_FOUND")
    assert await server.refused("GET", "/profile/carol") == (400, "M_INVALID_PARAM")


async def test_fields_are_served_under_their_older_path_too(server: AccountServer) -> None:
    token = await server.user("alice")
    old = "/_matrix/client/unstable/uk.tcpip.msc4133" + ALICE
    assert await server.call("PUT", f"{old}/m.tz", {"m.tz": "Europe/Paris"}, token=token) == (200, {})
    assert await server.call("GET", f"{old}/m.tz") == (200, {"m.tz": "Europe/Paris"})
    assert await server.call("GET", old) == (200, {"m.tz": "Europe/Paris"})
    assert await server.call("DELETE", f"{old}/m.tz", token=token) == (200, {})
    assert await server.call("GET", ALICE) == (200, {})


@pytest.mark.parametrize(
    ("settings", "capability"),
    [
        (Profiles(), {"enabled": True}),
        (Profiles(disallowed_fields=("displayname",)), {"enabled": True, "disallowed": ["displayname"]}),
        (Profiles(allowed_fields=("m.tz",)), {"enabled": True, "allowed": ["m.tz"]}),
        (Profiles(changes=False), {"enabled": False}),
    ],
)
async def test_who_runs_the_server_says_which_fields_may_be_changed(
    sqlite_database: Database, settings: Profiles, capability: dict[str, Any]
) -> None:
    async with account_server(sqlite_database, profiles=settings) as server:
        token = await server.user("alice")
        _, reply = await server.call("GET", "/capabilities", token=token)
        assert reply["capabilities"]["m.profile_fields"] == capability
        may = settings.may_change("displayname")
        assert reply["capabilities"]["m.set_displayname"] == {"enabled": may}
        status, _ = await server.call("PUT", f"{ALICE}/displayname", {"displayname": "A"}, token=token)
        assert status == (200 if may else 403)
        status, _ = await server.call("DELETE", f"{ALICE}/displayname", token=token)
        assert status == (200 if may else 403)
        status, _ = await server.call("PUT", f"{ALICE}/m.tz", {"m.tz": "UTC"}, token=token)
        assert status == (200 if settings.changes else 403)


async def test_profiles_may_be_for_those_with_an_account(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, profiles=Profiles(require_auth=True)) as server:
        token = await server.user("alice")
        assert await server.refused("GET", ALICE) == (401, "M_MISSING_TOKEN")
        assert await server.call("GET", ALICE, token=token) == (200, {})


async def test_profiles_may_be_for_those_who_know_each_other(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, profiles=Profiles(limit_to_shared_rooms=True)) as server:
        alice, bob = await server.user("alice"), await server.user("bob")
        assert await server.refused("GET", ALICE) == (401, "M_MISSING_TOKEN")
        assert await server.call("GET", ALICE, token=alice) == (200, {})
        assert await server.refused("GET", ALICE, token=bob) == (403, "M_FORBIDDEN")
        assert await server.refused("GET", "/profile/@nobody:a.org", token=bob) == (403, "M_FORBIDDEN")
        await server.call("POST", "/createRoom", {"preset": "public_chat"}, token=alice)
        assert await server.call("GET", ALICE, token=bob) == (200, {})
