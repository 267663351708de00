"""Registering by shared secret: only with a fresh nonce and a code that fits the request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError
from homeserver.storage import users
from homeserver.storage.database import Database
from homeserver.users.registration import RegistrationMode
from homeserver.users.shared_secret import SharedSecret, registration_mac
from tests.client_api.account_server import AccountServer, account_server, segment

PATH = "/_synapse/admin/v1/register"
SECRET = "a secret of theirs"


@pytest.fixture
async def closed(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A server where only who knows the secret may register."""
    async with account_server(
        sqlite_database, RegistrationMode.CLOSED, registration_secret=SECRET
    ) as running:
        yield running


async def wish(server: AccountServer, secret: str = SECRET, **changes: Any) -> dict[str, Any]:
    """What a script sends; ``changes`` are made after the code was."""
    status, reply = await server.call("GET", PATH)
    assert status == 200
    account = {"username": "Root", "password": "an admin's password", "admin": True}
    mac = registration_mac(secret, reply["nonce"], **account)
    return {"nonce": reply["nonce"], **account, "mac": mac, **changes}


def test_the_code_is_the_one_that_synapse_documents() -> None:
    # printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl sha1 -hmac shared_secret
    mac = registration_mac(
        "shared_secret", "thisisanonce", username="pepper_roni", password="pizza", admin=True
    )
    assert mac == "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7"


async def test_an_administrator_registers_where_nobody_else_may(closed: AccountServer) -> None:
    status, reply = await closed.call("POST", PATH, await wish(closed, displayname="The root"))
    assert status == 200
    assert (reply["user_id"], reply["home_server"]) == ("@root:a.org", "a.org")

    user = await users.user(closed.db.read, "@root:a.org")
    assert user is not None
    assert user.is_admin
    assert (await closed.call("GET", "/account/whoami", token=reply["access_token"]))[1]["device_id"] == (
        reply["device_id"]
    )
    profile = await closed.call("GET", f"/profile/{segment('@root:a.org')}/displayname")
    assert profile == (200, {"displayname": "The root"})


async def test_a_code_is_good_for_one_account_of_one_kind(closed: AccountServer) -> None:
    changed: list[dict[str, Any]] = [
        {"username": "other"},
        {"password": "another password"},
        {"admin": False},
        {"mac": ""},
        {"mac": "é"},
    ]
    for changes in changed:
        assert await closed.refused("POST", PATH, await wish(closed, **changes)) == (403, "M_FORBIDDEN")
    assert await closed.refused("POST", PATH, await wish(closed, "guessed")) == (403, "M_FORBIDDEN")


async def test_a_nonce_is_good_once_and_for_a_minute(closed: AccountServer) -> None:
    first = await wish(closed)
    assert (await closed.call("POST", PATH, first))[0] == 200
    assert await closed.refused("POST", PATH, first) == (400, "M_UNKNOWN")

    failed = await wish(closed)
    await closed.refused("POST", PATH, {**failed, "mac": "0"})
    assert await closed.refused("POST", PATH, failed) == (400, "M_UNKNOWN")

    late = await wish(closed)
    closed.clock.advance(60)
    assert await closed.refused("POST", PATH, late) == (400, "M_UNKNOWN")


async def test_a_body_lacks_nothing(closed: AccountServer) -> None:
    whole = await wish(closed)
    for name in ("nonce", "username", "password", "mac"):
        body = {key: value for key, value in whole.items() if key != name}
        assert await closed.refused("POST", PATH, body) == (400, "M_BAD_JSON")
    assert await closed.refused("POST", PATH, {**whole, "user_type": "bot"}) == (400, "M_INVALID_PARAM")


async def test_names_are_as_for_everybody(closed: AccountServer) -> None:
    assert (await closed.call("POST", PATH, await wish(closed)))[0] == 200
    assert await closed.refused("POST", PATH, await wish(closed)) == (400, "M_USER_IN_USE")


async def test_without_a_secret_there_is_nothing_to_know(server: AccountServer) -> None:
    assert await server.refused("GET", PATH) == (400, "M_UNKNOWN")
    body = {"nonce": "n", "username": "u", "password": "p", "mac": "m"}
    assert await server.refused("POST", PATH, body) == (400, "M_UNKNOWN")


def test_old_nonces_make_way_for_new_ones() -> None:
    secret = SharedSecret(SECRET, FakeClock())
    first = secret.nonce()
    for _ in range(1_000):
        secret.nonce()
    with pytest.raises(MatrixError, match="nonce"):
        secret.check(first, "", username="u", password="p", admin=False)
