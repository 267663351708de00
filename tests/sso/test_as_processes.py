"""A server and a provider as processes of their own: signing on through a restart in the middle of it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp

from tests.interop.inglenook import inglenook
from tests.processes import LOOPBACK, Authority, free_port
from tests.sso.conftest import TRUSTED, Running
from tests.sso.provider import CLIENT_ID, CLIENT_SECRET


async def test_a_server_that_is_started_anew_knows_who_comes_back(tmp_path: Path, provider: Running) -> None:
    port = free_port()
    here = f"http://{LOOPBACK}:{port}"
    known = {
        "id": "example",
        "name": "Example",
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "allow_registration": True,
        "scopes": ["openid", "profile", "email"],
        "email": "{email}",
    }
    settings = {
        "public_base_url": here,
        "listeners": [{"bind": LOOPBACK, "port": port, "serves": ["client"]}],
        "federation": {"enabled": False},
        "sso": {"providers": [known], "trusted_redirects": [TRUSTED]},
    }
    names = {"preferred_username": "alice", "email": "Alice@example.org", "email_verified": True}
    provider.behaves(claims=names)
    (tmp_path / "tls").mkdir()
    server = inglenook(tmp_path / "server", Authority(tmp_path / "tls"), settings=settings)
    server.client_url, server.ready_ports = here, [port]
    server.start()
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:

            async def follow(url: str) -> str:
                async with browser.get(url, allow_redirects=False) as page:
                    assert page.status == 302, await page.text()
                    return page.headers["Location"]

            start = f"{here}/_matrix/client/v3/login/sso/redirect?redirectUrl={TRUSTED}"
            back = await follow(await follow(start))
            server.stop()
            server.start()
            [token] = parse_qs(urlsplit(await follow(back)).query)["loginToken"]
            body = {"type": "m.login.token", "token": token, "device_id": "PHONE"}
            async with browser.post(f"{here}/_matrix/client/v3/login", json=body) as reply:
                login = await reply.json()
            assert login["user_id"] == f"@alice:{server.server_name}"
            headers = {"Authorization": f"Bearer {login['access_token']}"}
            async with browser.get(f"{here}/_matrix/client/v3/account/3pid", headers=headers) as reply:
                assert (await reply.json())["threepids"][0]["address"] == "alice@example.org"
            server.stop()
            server.start()
            whois = f"{here}/_matrix/client/v3/admin/whois/{login['user_id']}"
            async with browser.get(whois, headers=headers) as reply:
                devices = (await reply.json())["devices"]
            assert devices["PHONE"]["sessions"][0]["connections"][0]["ip"] == LOOPBACK
    finally:
        server.stop()
