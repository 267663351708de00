"""Proving once more who one is, at a provider (spec: "SSO during User-Interactive Authentication")."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client_api.account_server import AccountServer, password_auth, segment
from tests.sso.browser import HERE, Browser, Page
from tests.sso.conftest import TRUSTED, Running

ALICE = "@alice:a.org"
FALLBACK = f"{HERE}/_matrix/client/v3/auth/m.login.sso/fallback/web"


class Alice:
    """Somebody whose account came from the provider, and who wants a device gone."""

    def __init__(self, server: AccountServer, browser: Browser) -> None:
        self.server = server
        self.browser = browser

    async def sign_on(self) -> Alice:
        page = await self.browser.sign_on(TRUSTED)
        [token] = parse_qs(urlsplit(page.url).query)["loginToken"]
        _, login = await self.server.call("POST", "/login", {"type": "m.login.token", "token": token})
        self.token = login["access_token"]
        await self.server.user("alice", device_id="LOST")
        return self

    async def delete(self, auth: dict[str, Any] | None = None) -> tuple[int, Any]:
        body = {"devices": ["LOST"], **({"auth": auth} if auth else {})}
        return await self.server.call("POST", "/delete_devices", body, token=self.token)

    async def session(self) -> str:
        status, needed = await self.delete()
        assert (status, needed["flows"]) == (401, [{"stages": ["m.login.sso"]}])
        return str(needed["session"])

    async def fallback(self, session: str) -> Page:
        return await self.browser.open(f"{FALLBACK}?session={segment(session)}")


@pytest.fixture
async def alice(server: AccountServer, browser: Browser) -> Alice:
    return await Alice(server, browser).sign_on()


async def test_the_provider_confirms_and_so_does_the_person(alice: Alice) -> None:
    session = await alice.session()
    page = await alice.fallback(session)
    assert "log devices out of the account @alice:a.org" in page.text
    assert (await alice.delete({"session": session}))[0] == 401
    done = await alice.browser.agree(page)
    assert "window.onAuthDone" in done.text
    assert await alice.delete({"session": session}) == (200, {})
    assert (await alice.delete({"session": session}))[0] == 401


async def test_the_provider_is_asked_to_let_nobody_through_unseen(alice: Alice) -> None:
    page = await alice.browser.ask(f"{FALLBACK}?session={await alice.session()}")
    assert page.headers is not None
    assert parse_qs(urlsplit(page.headers["Location"]).query)["prompt"] == ["login"]


async def test_somebody_else_at_the_provider_confirms_nothing(alice: Alice, provider: Running) -> None:
    session = await alice.session()
    provider.behaves(claims={"sub": "2", "preferred_username": "mallory"})
    page = await alice.fallback(session)
    assert page.status == 403
    assert not await alice.server.accounts.is_active("@mallory:a.org")
    await alice.browser.sign_on(TRUSTED)
    page = await alice.fallback(session)
    assert (page.status, "whose account this is not about" in page.text) == (403, True)
    assert (await alice.delete({"session": session}))[0] == 401


async def test_a_confirmation_is_for_the_request_it_was_asked_for(alice: Alice) -> None:
    session = await alice.session()
    await alice.browser.agree(await alice.fallback(session))
    body = {"devices": ["LOST", "OTHER"], "auth": {"session": session}}
    refused = await alice.server.refused("POST", "/delete_devices", body, token=alice.token)
    assert refused == (403, "M_FORBIDDEN")


async def test_sessions_that_are_not_there(alice: Alice) -> None:
    assert (await alice.fallback("")).status == 404
    assert (await alice.fallback("unknown")).status == 404
    page = await alice.fallback(session := await alice.session())
    alice.server.clock.advance(15 * 60)
    assert (await alice.browser.agree(page)).status == 400
    assert (await alice.fallback(session)).status == 404


async def test_a_client_cannot_claim_to_have_signed_on(alice: Alice) -> None:
    status, reply = await alice.delete({"type": "m.login.sso", "session": await alice.session()})
    assert (status, reply["errcode"]) == (401, "M_UNAUTHORIZED")
    status, reply = await alice.delete(password_auth("alice", await alice.session()))
    assert (status, reply["errcode"]) == (401, "M_UNRECOGNIZED")


async def test_who_has_a_password_too_may_choose(alice: Alice) -> None:
    await alice.server.accounts.change_password(ALICE, "secret alice")
    status, needed = await alice.delete()
    assert (status, needed["flows"]) == (401, [{"stages": ["m.login.password"]}, {"stages": ["m.login.sso"]}])
    assert await alice.delete(password_auth("alice", needed["session"])) == (200, {})
