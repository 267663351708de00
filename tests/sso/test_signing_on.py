"""Logging in with an account elsewhere: a browser, this server, and a provider as a process."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from homeserver.sso import provider as provider_module
from homeserver.storage import sso_subjects
from tests.client_api.account_server import AccountServer, segment
from tests.sso.browser import HERE, Browser, Page
from tests.sso.conftest import TRUSTED, Running, Servers

ALICE = "@alice:a.org"
CLIENT = TRUSTED + "#/welcome"
CALLBACK = f"{HERE}/_inglenook/sso/oidc/callback"


def login_token(page: Page) -> str:
    [token] = parse_qs(urlsplit(page.url).query)["loginToken"]
    return token


async def log_in(server: AccountServer, token: str) -> tuple[int, Any]:
    return await server.call("POST", "/login", {"type": "m.login.token", "token": token})


async def test_a_stranger_to_this_server_gets_an_account_and_comes_back_to_it(
    server: AccountServer, browser: Browser
) -> None:
    page = await browser.sign_on(CLIENT)
    assert page.url.startswith(TRUSTED + "?loginToken=")
    assert page.url.endswith("#/welcome")
    status, login = await log_in(server, login_token(page))
    assert (status, login["user_id"]) == (200, ALICE)
    _, profile = await server.call("GET", f"/profile/{ALICE}")
    assert profile["displayname"] == "Alice Example"
    again = await browser.sign_on(CLIENT)
    assert (await log_in(server, login_token(again)))[1]["user_id"] == ALICE
    assert (await log_in(server, login_token(again)))[0] == 403
    assert browser.cookies == {}


async def test_clients_are_told_of_the_providers(server: AccountServer) -> None:
    providers = [{"id": "example", "name": "Example & Co"}]
    flows = [
        {"type": "m.login.password"},
        {"type": "m.login.sso", "identity_providers": providers},
        {"type": "m.login.token"},
        {"type": "m.login.application_service"},
    ]
    assert await server.call("GET", "/login") == (200, {"flows": flows})


async def test_a_client_that_is_not_known_gets_a_token_only_with_consent(
    server: AccountServer, browser: Browser
) -> None:
    page = await browser.sign_on("https://elsewhere.example/?a=1&loginToken=old&b=2")
    assert page.status == 200
    assert "elsewhere.example" in page.text
    assert ALICE in page.text
    assert page.headers is not None
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    agreed = await browser.agree(page)
    assert agreed.url.startswith("https://elsewhere.example/?a=1&b=2&loginToken=")
    assert (await log_in(server, login_token(agreed)))[0] == 200
    assert (await browser.agree(page)).status == 400


async def test_an_app_is_called_by_its_own_kind_of_link(browser: Browser) -> None:
    page = await browser.sign_on("org.example.app:/sso")
    assert "the app that opens org.example.app: links" in page.text
    assert (await browser.agree(page)).url.startswith("org.example.app:/sso?loginToken=")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "/relative",
        "",
        "https://",
        "https://x/ y",
        "https://x\\@y",
        "https://x:0/",
        "https://x/" + "y" * 2000,
        "https://[x",
    ],
)
async def test_nobody_is_sent_just_anywhere(browser: Browser, url: str) -> None:
    page = await browser.sign_on(url)
    assert (page.status, page.url[: len(HERE)]) == (400, HERE)


async def test_the_cookie_is_for_this_browser_and_these_pages_alone(browser: Browser) -> None:
    await browser.ask(f"{HERE}/_matrix/client/v3/login/sso/redirect/example?redirectUrl={segment(CLIENT)}")
    cookie = browser.cookies["inglenook_sso"]
    assert (cookie["path"], cookie["samesite"], cookie["secure"], cookie["httponly"]) == (
        "/_inglenook/sso", "Lax", True, True,
    )  # fmt: skip


async def to_the_callback(browser: Browser) -> str:
    """Sign on as far as the provider's redirect back, which is not opened."""
    path = f"/_matrix/client/v3/login/sso/redirect/example?redirectUrl={segment(CLIENT)}"
    there = await browser.ask(HERE + path)
    assert there.headers is not None
    back = await browser.ask(there.headers["Location"])
    assert back.headers is not None
    location: str = back.headers["Location"]
    assert location.startswith(CALLBACK)
    return location


async def test_an_answer_is_taken_once_from_the_browser_that_asked(
    servers: Servers, server: AccountServer, browser: Browser
) -> None:
    location, cookies = await to_the_callback(browser), dict(browser.cookies)
    assert (await (await servers.browser(server)).open(location)).status == 400
    assert (await browser.open(location)).status == 302
    assert (await browser.open(location)).status == 400
    browser.cookies = cookies
    assert (await browser.open(location)).status == 400


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x&code=x", "?state=%00&code=%FF", "?state=é"])
async def test_answers_to_nothing(browser: Browser, query: str) -> None:
    assert (await browser.open(CALLBACK + query)).status == 400
    await to_the_callback(browser)
    assert (await browser.open(CALLBACK + query)).status == 400


@pytest.mark.parametrize("cookie", ["", "x", "é", "A" * 100, "A" * 7000])
async def test_cookies_that_are_not_ours(browser: Browser, cookie: str) -> None:
    location = await to_the_callback(browser)
    browser.cookies["inglenook_sso"].set("inglenook_sso", cookie, cookie)
    assert (await browser.open(location)).status == 400


async def test_a_visit_at_the_provider_does_not_last_for_ever(
    server: AccountServer, browser: Browser
) -> None:
    location = await to_the_callback(browser)
    server.clock.advance(15 * 60)
    assert (await browser.open(location)).status == 400


async def test_a_code_is_worth_nothing_to_who_did_not_ask_for_it(browser: Browser) -> None:
    first = parse_qs(urlsplit(await to_the_callback(browser)).query)
    second = parse_qs(urlsplit(await to_the_callback(browser)).query)
    page = await browser.open(f"{CALLBACK}?state={second['state'][0]}&code={first['code'][0]}")
    assert page.status == 403


async def test_who_changes_their_mind_at_the_provider(provider: Running, browser: Browser) -> None:
    provider.behaves(refuse={"error": "access_denied", "error_description": "<script>"})
    page = await browser.sign_on(CLIENT)
    assert page.status == 403
    assert "Example &amp; Co did not sign you on" in page.text
    assert "<script>" not in page.text


HOUR = 3600


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://another.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"aud": ["inglenook", "another"]},
        {"azp": "another"},
        {"exp": time.time() - HOUR},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": float("nan")},
        {"iat": time.time() + HOUR},
        {"nbf": time.time() + HOUR},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
        {"sub": "x" * 256},
        {"sub": "\x00"},
    ],
)
async def test_id_tokens_that_prove_nothing(
    provider: Running, server: AccountServer, browser: Browser, claims: dict[str, Any]
) -> None:
    # orjson writes "not a number" as null, which leaves the claim out: refused all the same.
    provider.behaves(claims={"preferred_username": "alice", **claims})
    page = await browser.sign_on(CLIENT)
    assert page.status == 403
    assert not await server.accounts.is_active(ALICE)


@pytest.mark.parametrize("signed", ["none", "HS256", "stranger"])
async def test_id_tokens_that_the_provider_did_not_sign(
    provider: Running, server: AccountServer, browser: Browser, signed: str
) -> None:
    provider.behaves(claims={"preferred_username": "alice"}, signed=signed)
    assert (await browser.sign_on(CLIENT)).status == 403
    assert not await server.accounts.is_active(ALICE)


async def test_new_keys_are_looked_for_once_a_minute(
    provider: Running, server: AccountServer, browser: Browser
) -> None:
    claims = {"preferred_username": "alice"}
    assert (await browser.sign_on(CLIENT)).status == 302
    before = provider.asked().count("/jwks")
    provider.behaves(claims=claims, kid="nobody's")
    server.clock.advance(61)
    for _ in range(3):
        assert (await browser.sign_on(CLIENT)).status == 403
    assert provider.asked().count("/jwks") == before + 1
    provider.behaves(claims=claims, new_key="k2")
    assert (await browser.sign_on(CLIENT)).status == 403
    server.clock.advance(61)
    assert (await browser.sign_on(CLIENT)).status == 302


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
@pytest.mark.parametrize(
    "fault", ["slow", "huge", "deep", 500, 404, {"answer": []}, {"answer": {"keys": 5, "id_token": "x"}}]
)
async def test_a_provider_out_of_order(
    provider: Running, browser: Browser, monkeypatch: pytest.MonkeyPatch, path: str, fault: Any
) -> None:
    monkeypatch.setattr(provider_module, "_TIMEOUT_S", 0.2)
    provider.behaves(faults={path: fault})
    page = await browser.sign_on(CLIENT)
    assert page.status in (403, 502)
    assert "Please" in page.text


async def test_a_provider_that_is_away_and_comes_back(
    provider: Running, server: AccountServer, browser: Browser
) -> None:
    discovery = "/.well-known/openid-configuration"
    provider.behaves(faults={discovery: 503})
    before = provider.asked().count(discovery)
    assert [(await browser.sign_on(CLIENT)).status for _ in range(3)] == [502, 502, 502]
    assert provider.asked().count(discovery) == before + 1
    provider.behaves(claims={"preferred_username": "alice"})
    server.clock.advance(6)
    assert (await browser.sign_on(CLIENT)).status == 302


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "http://127.0.0.1:1"}, {"token_endpoint": "ftp://x"}, {"jwks_uri": "file:///etc/passwd"},
     {"authorization_endpoint": "javascript:x"}],
)  # fmt: skip
async def test_discovery_documents_that_are_not_believed(
    provider: Running, browser: Browser, metadata: dict[str, str]
) -> None:
    provider.behaves(metadata=metadata)
    assert (await browser.sign_on(CLIENT)).status == 502


async def test_a_provider_that_is_not_there(servers: Servers, provider: Running) -> None:
    server = await servers.start(Running("http://127.0.0.1:9").settings())
    page = await (await servers.browser(server)).sign_on(CLIENT)
    assert (page.status, "cannot be asked" in page.text) == (502, True)


async def test_userinfo_adds_to_the_token_and_must_be_about_the_same_person(
    servers: Servers, provider: Running
) -> None:
    server = await servers.start(provider.settings(userinfo=True, localpart="{nickname}"))
    server.clock.advance(time.time() - server.clock.now_ms() / 1000)
    browser = await servers.browser(server)
    provider.behaves(userinfo={"nickname": "bob", "sub": "2"})
    assert (await browser.sign_on(CLIENT)).status == 403
    provider.behaves(userinfo={"nickname": "bob"})
    assert (await browser.sign_on(CLIENT)).status == 302
    assert await server.accounts.is_active("@bob:a.org")


async def test_a_name_that_is_taken_gets_a_number(
    provider: Running, server: AccountServer, browser: Browser
) -> None:
    await server.user("alice")
    page = await browser.sign_on(CLIENT)
    assert (await log_in(server, login_token(page)))[1]["user_id"] == "@alice2:a.org"
    provider.behaves(claims={"preferred_username": "Alice", "sub": "2"})
    page = await browser.sign_on(CLIENT)
    assert (await log_in(server, login_token(page)))[1]["user_id"] == "@alice3:a.org"


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"preferred_username": "Ann Lee@b.org"}, "@ann=20lee=40b.org:a.org"),
        ({"preferred_username": "Ää"}, "@=c3=84=c3=a4:a.org"),
        ({"preferred_username": "x" * 500}, None),
        ({"preferred_username": ""}, None),
        ({"preferred_username": 5}, None),
        ({}, None),
    ],
)
async def test_names_are_made_fit_or_said_to_be_unfit(
    provider: Running, server: AccountServer, browser: Browser, claims: dict[str, Any], user_id: str | None
) -> None:
    provider.behaves(claims={"name": "A" * 1000, **claims})
    page = await browser.sign_on(CLIENT)
    assert page.status == (403 if user_id is None else 302)
    assert user_id is None or await server.accounts.is_active(user_id)


async def test_without_registration_only_who_is_known_signs_on(servers: Servers, provider: Running) -> None:
    server = await servers.start(provider.settings(allow_registration=False))
    server.clock.advance(time.time() - server.clock.now_ms() / 1000)
    browser = await servers.browser(server)
    page = await browser.sign_on(CLIENT)
    assert (page.status, "Nobody here has an account" in page.text) == (403, True)
    await server.user("carol")
    await server.db.write(lambda tx: sso_subjects.add(tx, "example", "1", "@carol:a.org"))
    page = await browser.sign_on(CLIENT)
    assert (await log_in(server, login_token(page)))[1]["user_id"] == "@carol:a.org"


async def test_accounts_that_are_closed_or_locked_stay_so(server: AccountServer, browser: Browser) -> None:
    await browser.sign_on(CLIENT)
    await server.people.moderation.change(ALICE, locked=True)
    page = await browser.sign_on(CLIENT)
    assert (page.status, "has been locked" in page.text) == (403, True)
    await server.people.moderation.change(ALICE, locked=False)
    await server.accounts.deactivate(ALICE)
    page = await browser.sign_on(CLIENT)
    assert (page.status, "is closed" in page.text) == (403, True)


async def test_several_providers_are_a_choice(servers: Servers, provider: Running) -> None:
    other = Running(provider.issuer).settings()
    server = await servers.start(provider.settings(), type(other)(
        id="other", name="<Other>", issuer=other.issuer, client_id="x", brand="github", icon="mxc://a.org/x"
    ))  # fmt: skip
    browser = await servers.browser(server)
    start = f"{HERE}/_matrix/client/v3/login/sso/redirect?redirectUrl={segment(CLIENT)}&action=register"
    page = await browser.open(start)
    assert page.status == 200
    assert "&lt;Other&gt;" in page.text
    assert "/login/sso/redirect/other?redirectUrl=https%3A%2F%2Fapp.a.org" in page.text
    _, flows = await server.call("GET", "/login")
    assert flows["flows"][1]["identity_providers"][1] == {
        "id": "other", "name": "<Other>", "brand": "github", "icon": "mxc://a.org/x",
    }  # fmt: skip
    assert (await browser.sign_on(CLIENT, provider="nobody")).status == 404


async def test_who_wants_an_account_is_sent_to_get_one(server: AccountServer, browser: Browser) -> None:
    path = "/_matrix/client/v3/login/sso/redirect"
    page = await browser.ask(f"{HERE}{path}?redirectUrl={segment(CLIENT)}&action=register")
    assert page.headers is not None
    assert parse_qs(urlsplit(page.headers["Location"]).query)["prompt"] == ["create"]
