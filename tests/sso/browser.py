"""A browser, as far as signing on needs one: it follows redirects and keeps cookies to their paths."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie
from typing import Any
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from tests.client_api.account_server import AccountServer

HERE = "https://a.org"


@dataclass(frozen=True, slots=True)
class Page:
    """Where the browser ended, and what it shows; ``url`` may be a client's, which it does not open."""

    url: str
    status: int
    text: str
    headers: CIMultiDictProxy[str] | None = None

    def value(self, name: str) -> str:
        """Of a field of the page's form."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        return html.unescape(found[1]) if found else ""


@dataclass(slots=True)
class Browser:
    """Opens this server's pages (at ``https://a.org``) and those of providers on this machine."""

    server: AccountServer
    session: aiohttp.ClientSession
    cookies: dict[str, Morsel[str]] = field(default_factory=dict)

    async def open(self, url: str, *, method: str = "GET", body: str | None = None) -> Page:
        """A page, after all redirects that stay with this server or a provider."""
        for _ in range(10):
            page = await self.ask(url, method=method, body=body)
            if page.status != 302 or page.headers is None:
                return page
            url, method, body = page.headers["Location"], "GET", None
            if not url.startswith((f"{HERE}/", "http://127.0.0.1:", "http://localhost:")):
                return Page(url, 302, "")
        raise AssertionError("redirected too often")

    async def ask(self, url: str, *, method: str = "GET", body: str | None = None) -> Page:
        """One page, without following it anywhere."""
        kept = {
            name: morsel.value
            for name, morsel in self.cookies.items()
            if url.startswith(HERE + morsel["path"])
        }
        options: dict[str, Any] = {"allow_redirects": False, "data": body}
        if url.startswith(HERE):
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in kept.items())}
            path = URL(url.removeprefix(HERE), encoded=True)
            response = await self.server.client.request(method, path, headers=headers, **options)
        else:
            response = await self.session.request(method, URL(url, encoded=True), **options)
        async with response:
            self._keep(response.headers.getall("Set-Cookie", []), HERE if url.startswith(HERE) else "")
            return Page(url, response.status, await response.text(), response.headers)

    async def sign_on(self, redirect_url: str, provider: str = "example", **query: str) -> Page:
        """Begin a login for a client."""
        encoded = urlencode({"redirectUrl": redirect_url, **query})
        return await self.open(f"{HERE}/_matrix/client/v3/login/sso/redirect/{provider}?{encoded}")

    async def agree(self, page: Page) -> Page:
        """Press the button of a page."""
        body = urlencode({"id": page.value("id")})
        return await self.open(f"{HERE}/_inglenook/sso/confirm", method="POST", body=body)

    def _keep(self, set_cookies: list[str], origin: str) -> None:
        for text in set_cookies if origin else ():
            for name, morsel in SimpleCookie(text).items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel
