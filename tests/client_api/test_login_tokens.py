"""Logging another device in with a token, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.config.login import Login
from homeserver.errors import MatrixError
from homeserver.storage.database import Database
from homeserver.users.login_tokens import LoginTokens
from tests.client_api.account_server import AccountServer, account_server, configured, password_auth

GET_TOKEN = "/_matrix/client/v1/login/get_token"
PASSWORD, APPLICATION_SERVICE = {"type": "m.login.password"}, {"type": "m.login.application_service"}


@pytest.fixture
async def giving(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A server that gives out login tokens, good for a minute."""
    ways = Login(token_login=True, token_lifetime=60)
    async with account_server(sqlite_database, config=configured(login=ways)) as running:
        yield running


async def login_token(server: AccountServer, token: str) -> str:
    _, needed = await server.call("POST", GET_TOKEN, {}, token=token)
    body = {"auth": password_auth("alice", needed["session"])}
    status, reply = await server.call("POST", GET_TOKEN, body, token=token)
    assert (status, reply["expires_in_ms"]) == (200, 60_000)
    return str(reply["login_token"])


def by_token(token: Any) -> dict[str, Any]:
    return {"type": "m.login.token", "token": token}


async def test_a_token_logs_one_device_in(giving: AccountServer) -> None:
    alice = await giving.user("alice")
    token = await login_token(giving, alice)
    status, reply = await giving.call("POST", "/login", {**by_token(token), "device_id": "NEW"})
    assert (status, reply["user_id"], reply["device_id"]) == (200, "@alice:a.org", "NEW")
    assert (await giving.call("GET", "/account/whoami", token=reply["access_token"]))[0] == 200
    assert await giving.refused("POST", "/login", by_token(token)) == (403, "M_FORBIDDEN")


async def test_every_token_takes_a_proof_of_its_own(giving: AccountServer) -> None:
    alice = await giving.user("alice")
    await login_token(giving, alice)
    status, needed = await giving.call("POST", GET_TOKEN, {}, token=alice)
    assert (status, needed["flows"]) == (401, [{"stages": ["m.login.password"]}])


async def test_a_token_ends_with_its_time(giving: AccountServer) -> None:
    token = await login_token(giving, await giving.user("alice"))
    giving.clock.advance(60)
    assert await giving.refused("POST", "/login", by_token(token)) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("unknown", (403, "M_FORBIDDEN")),
        ("", (403, "M_FORBIDDEN")),
        ("é" * 10_000, (403, "M_FORBIDDEN")),
        (None, (400, "M_MISSING_PARAM")),
        (5, (400, "M_BAD_JSON")),
    ],
)
async def test_what_is_no_token(giving: AccountServer, token: Any, expected: tuple[int, str]) -> None:
    assert await giving.refused("POST", "/login", by_token(token)) == expected


async def test_a_token_does_not_outlive_its_account(giving: AccountServer) -> None:
    token = await login_token(giving, await giving.user("alice"))
    await giving.accounts.deactivate("@alice:a.org")
    assert await giving.refused("POST", "/login", by_token(token)) == (403, "M_USER_DEACTIVATED")


async def test_a_token_does_not_unlock_an_account(giving: AccountServer) -> None:
    token = await login_token(giving, await giving.user("alice"))
    await giving.people.moderation.change("@alice:a.org", locked=True)
    assert await giving.refused("POST", "/login", by_token(token)) == (401, "M_USER_LOCKED")


async def test_clients_find_out_whether_there_are_tokens(
    server: AccountServer, giving: AccountServer
) -> None:
    flows = [PASSWORD, {"type": "m.login.token", "get_login_token": True}, APPLICATION_SERVICE]
    assert await giving.call("GET", "/login") == (200, {"flows": flows})
    _, reply = await giving.call("GET", "/capabilities", token=await giving.user("alice"))
    assert reply["capabilities"]["m.get_login_token"] == {"enabled": True}


async def test_by_default_there_are_none(server: AccountServer) -> None:
    token = await server.user("alice")
    assert await server.call("GET", "/login") == (200, {"flows": [PASSWORD, APPLICATION_SERVICE]})
    assert await server.refused("POST", GET_TOKEN, {}, token=token) == (404, "M_UNRECOGNIZED")
    assert await server.refused("POST", "/login", by_token("x")) == (400, "M_UNKNOWN")
    _, reply = await server.call("GET", "/capabilities", token=token)
    assert reply["capabilities"]["m.get_login_token"] == {"enabled": False}


async def test_passwords_can_be_switched_off(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, config=configured(login=Login(password=False))) as server:
        await server.user("alice")
        body = {"type": "m.login.password", "user": "alice", "password": "secret alice"}
        assert await server.call("GET", "/login") == (200, {"flows": [APPLICATION_SERVICE]})
        assert await server.refused("POST", "/login", body) == (400, "M_UNKNOWN")


def test_tokens_are_bounded_in_number() -> None:
    tokens = LoginTokens(FakeClock(), max_tokens=3)
    first = tokens.issue("@a:a.org", 60)
    rest = [tokens.issue(f"@{name}:a.org", 60) for name in "bcd"]
    with pytest.raises(MatrixError):
        tokens.redeem(first)
    assert [tokens.redeem(token) for token in rest] == ["@b:a.org", "@c:a.org", "@d:a.org"]


def test_one_user_does_not_crowd_out_the_others() -> None:
    tokens = LoginTokens(FakeClock())
    bobs, alices = tokens.issue("@bob:a.org", 60), [tokens.issue("@alice:a.org", 60) for _ in range(50)]
    assert tokens.redeem(bobs) == "@bob:a.org"
    with pytest.raises(MatrixError):
        tokens.redeem(alices[0])
    assert tokens.redeem(alices[-1]) == "@alice:a.org"
