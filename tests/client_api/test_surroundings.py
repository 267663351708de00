"""What clients find out of the people and machines around a server: relays, help, other ways to log in."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from homeserver.config.surroundings import Contact, Support, Turn
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured

URIS = ("turn:turn.a.org?transport=udp", "turns:turn.a.org")


async def test_without_relays_there_is_nothing_to_tell(server: AccountServer) -> None:
    assert await server.call("GET", "/voip/turnServer", token=await server.user("alice")) == (200, {})
    assert await server.refused("GET", "/voip/turnServer") == (401, "M_MISSING_TOKEN")


async def test_a_shared_secret_makes_a_password_for_a_time(sqlite_database: Database) -> None:
    turn = Turn(uris=URIS, shared_secret="north star", ttl=600)
    async with account_server(sqlite_database, config=configured(turn=turn)) as server:
        _, reply = await server.call("GET", "/voip/turnServer", token=await server.user("alice"))
        ends_at = server.clock.now_ms() // 1000 + 600
    assert reply["username"] == f"{ends_at}:@alice:a.org"
    mac = hmac.new(b"north star", reply["username"].encode(), hashlib.sha1).digest()
    assert reply["password"] == base64.b64encode(mac).decode()
    assert (reply["uris"], reply["ttl"]) == (list(URIS), 600)


async def test_or_everybody_has_the_same(sqlite_database: Database) -> None:
    turn = Turn(uris=URIS, username="calls", password="for all", ttl=60)
    async with account_server(sqlite_database, config=configured(turn=turn)) as server:
        reply = await server.call("GET", "/voip/turnServer", token=await server.user("alice"))
    expected = {"username": "calls", "password": "for all", "uris": list(URIS), "ttl": 60}
    assert reply == (200, expected)


def test_relays_need_a_way_in() -> None:
    with pytest.raises(ValueError, match="shared_secret"):
        Turn(uris=URIS, username="calls")
    with pytest.raises(ValueError, match="contact"):
        Contact()


async def test_who_can_help(sqlite_database: Database, server: AccountServer) -> None:
    assert await server.refused("GET", "/.well-known/matrix/support") == (404, "M_NOT_FOUND")
    contacts = (Contact(matrix_id="@root:a.org"), Contact(email_address="s@a.org", role="m.role.security"))
    support = Support(contacts=contacts, page="https://a.org/help")
    async with account_server(sqlite_database, config=configured(support=support)) as helpful:
        reply = await helpful.call("GET", "/.well-known/matrix/support")
    expected = {
        "contacts": [
            {"matrix_id": "@root:a.org", "role": "m.role.admin"},
            {"email_address": "s@a.org", "role": "m.role.security"},
        ],
        "support_page": "https://a.org/help",
    }
    assert reply == (200, expected)


async def test_there_is_no_oauth(server: AccountServer) -> None:
    path = "/_matrix/client/v1/auth_metadata"
    assert await server.refused("GET", path) == (404, "M_UNRECOGNIZED")


async def test_without_providers_there_is_no_single_sign_on(server: AccountServer) -> None:
    for path in (
        "/login/sso/redirect?redirectUrl=https://x",
        "/login/sso/redirect/x",
    ):
        assert await server.refused("GET", path) == (404, "M_UNRECOGNIZED")
