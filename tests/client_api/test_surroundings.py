"""What clients find out of the people and machines around a server: relays, help, other ways to log in."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from client_api.calls import relay_password
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


def test_the_password_is_made_as_relays_make_it() -> None:
    """Against ``openssl dgst -sha1 -hmac``, which draft-uberti-behave-turn-rest comes to."""
    username = "1433895918:@alice:a.org"
    assert relay_password("south pole", username) == "KKcLyHd66k12BAoeuABYk2OuZ9Y="


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


LIVEKIT = {"type": "livekit", "livekit_service_url": "https://sfu.a.org/jwt", "region": {"name": "north"}}


@pytest.mark.parametrize("path", ["v1/rtc/transports", "unstable/org.matrix.msc4143/rtc/transports"])
async def test_calls_of_many_find_their_way(sqlite_database: Database, path: str) -> None:
    found = configured(rtc_transports=(LIVEKIT,))
    async with account_server(sqlite_database, config=found) as server:
        token = await server.user("alice")
        reply = await server.call("GET", f"/_matrix/client/{path}", token=token)
        assert reply == (200, {"rtc_transports": [LIVEKIT]})
        assert await server.refused("GET", f"/_matrix/client/{path}") == (401, "M_MISSING_TOKEN")
        _, known = await server.call("GET", "/.well-known/matrix/client")
        assert known["org.matrix.msc4143.rtc_foci"] == [LIVEKIT]
        _, versions = await server.call("GET", "/_matrix/client/versions")
        assert versions["unstable_features"]["org.matrix.msc4143"] is True


async def test_or_are_told_that_there_is_none(server: AccountServer) -> None:
    path = "/_matrix/client/v1/rtc/transports"
    assert await server.call("GET", path, token=await server.user("alice")) == (200, {"rtc_transports": []})
    _, known = await server.call("GET", "/.well-known/matrix/client")
    assert "org.matrix.msc4143.rtc_foci" not in known
