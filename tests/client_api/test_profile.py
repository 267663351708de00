"""Profiles over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client_api.account_server import AccountServer

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
