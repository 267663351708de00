"""Signing on with a provider that others wrote."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from homeserver.config.login import Provider
from tests.processes import free_port
from tests.sso.conftest import TRUSTED, Servers, started


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    if importlib.util.find_spec("oidc_provider_mock") is None:
        pytest.skip("oidc-provider-mock is not installed")
    port = free_port()
    found = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    process = started([*command, "--require-nonce", "true", "--user", "anna"], found)
    yield found
    process.kill()
    process.wait()


async def test_signing_on_with_its_page(servers: Servers, issuer: str) -> None:
    settings = Provider(
        id="mock",
        name="Mock",
        issuer=issuer,
        client_id="inglenook",
        client_secret="a secret",
        allow_registration=True,
        userinfo=True,
        localpart="{sub}",
    )
    server = await servers.start(settings)
    server.clock.advance(time.time() - server.clock.now_ms() / 1000)
    browser = await servers.browser(server)
    page = await browser.sign_on(TRUSTED, provider="mock")
    assert page.status == 200
    assert "sub" in page.text
    async with browser.session.post(page.url, data={"sub": "anna"}, allow_redirects=False) as answer:
        location = answer.headers["Location"]
    back = await browser.open(location)
    [token] = parse_qs(urlsplit(back.url).query)["loginToken"]
    status, login = await server.call("POST", "/login", {"type": "m.login.token", "token": token})
    assert (status, login["user_id"]) == (200, "@anna:a.org")
