"""Single sign-on in the browser (client-server API, "SSO client login/authentication").

Unlike everything else here these endpoints talk with people: their errors are pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from urllib.parse import quote, urlencode, urlsplit

import structlog

from client_api.pages import form_fields, page
from homeserver import aiohttp_web as web
from homeserver.errors import MatrixError
from homeserver.replies import Reply
from homeserver.sso.failure import SignOnFailed
from homeserver.sso.redirects import check_redirect, described
from homeserver.sso.seals import Goal
from homeserver.sso.sign_on import ATTEMPT_LIFETIME_MS, Outcome, SignedOn, SingleSignOn
from homeserver.users.interactive_auth import Operation
from homeserver.web import Request

_log = structlog.get_logger()

_COOKIE = "inglenook_sso"
_PATH = "/_inglenook/sso"
CONFIRM = f"{_PATH}/confirm"
_REDIRECT = "/_matrix/client/v3/login/sso/redirect"
_FALLBACK = "/_matrix/client/v3/auth/m.login.sso/fallback/web"

Page: TypeAlias = Callable[[Request], Awaitable[web.Response]]

#: What an operation is to the person whose account it is about, by the end of its endpoint.
_DEEDS = {
    "/account/password": "change the password of",
    "/account/deactivate": "close for good",
    "/account/3pid": "add an email address to",
    "/account/3pid/add": "add an email address to",
    "/delete_devices": "log devices out of",
    "/login/get_token": "log another device in to",
    "/keys/device_signing/upload": "replace the encryption identity of",
}


class SsoApi:
    """The pages of single sign-on, if there is any; ``base_url`` is where browsers reach this server."""

    def __init__(self, sign_on: SingleSignOn | None, base_url: str) -> None:
        self._available = sign_on
        self._base_url = base_url
        parts = urlsplit(base_url)
        self._is_https = parts.scheme == "https"
        self._cookie_path = parts.path.rstrip("/") + _PATH

    @property
    def _sign_on(self) -> SingleSignOn:
        if self._available is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "This server has no single sign-on")
        return self._available

    async def redirect(self, request: Request) -> Reply:
        """``GET /login/sso/redirect``: to the provider, or to a choice of several."""
        return await self._page(request, self._redirect)

    async def redirect_to(self, request: Request) -> Reply:
        """``GET /login/sso/redirect/{idpId}``."""
        return await self._page(request, self._redirect_to)

    async def fallback(self, request: Request) -> Reply:
        """``GET /auth/m.login.sso/fallback/web``."""
        return await self._page(request, self._fallback)

    async def come_back(self, request: Request) -> Reply:
        """``GET /_inglenook/sso/oidc/callback``: where providers send people back to."""
        return await self._page(request, self._come_back)

    async def confirm(self, request: Request) -> Reply:
        """``POST /_inglenook/sso/confirm``: the answer to the question of a page."""
        return await self._page(request, self._confirm)

    async def _page(self, request: Request, show: Page) -> web.Response:
        try:
            return await show(request)
        except SignOnFailed as failed:
            _log.info("sign-on failed", path=request.path, reason=failed.message, detail=failed.detail)
            return page("refused.html", {"message": failed.message}, status=failed.status)

    async def _redirect(self, request: Request) -> web.Response:
        providers = self._sign_on.providers()
        if len(providers) == 1:
            return await self._send(request, providers[0]["id"])
        url = _redirect_url(request)
        query = urlencode({"redirectUrl": url, **_action(request)})
        return _choice(
            "How do you want to sign on?",
            [
                (each["name"], f"{self._base_url}{_REDIRECT}/{quote(each['id'], safe='')}?{query}")
                for each in providers
            ],
        )

    async def _redirect_to(self, request: Request) -> web.Response:
        return await self._send(request, request.params["idpId"])

    async def _send(self, request: Request, provider_id: str) -> web.Response:
        sign_on, goal = self._sign_on, Goal(redirect_url=_redirect_url(request))
        sent = await sign_on.begin(provider_id, goal, action=_action(request).get("action"))
        return self._remember(_see_other(sent.url), sent.cookie)

    async def _fallback(self, request: Request) -> web.Response:
        session = request.query.get("session", "")
        operation, known = await self._sign_on.providers_for_session(session)
        chosen = request.query.get("provider") or (known[0] if len(known) == 1 else None)
        if chosen is not None:
            sent = await self._sign_on.begin(chosen, Goal(session=session))
            return self._remember(_see_other(sent.url), sent.cookie)
        names = {each["id"]: each["name"] for each in self._sign_on.providers()}
        query = {"session": session}
        return _choice(
            f"Prove that {operation.user_id} is you",
            [
                (names[each], f"{self._base_url}{_FALLBACK}?{urlencode({**query, 'provider': each})}")
                for each in known
            ],
        )

    async def _come_back(self, request: Request) -> web.Response:
        return self._answer(await self._sign_on.come_back(_cookie(request), request.query))

    async def _confirm(self, request: Request) -> web.Response:
        question_id = form_fields(request.body).get("id", "")
        return self._answer(self._sign_on.agree(_cookie(request), question_id))

    def _answer(self, outcome: Outcome) -> web.Response:
        if isinstance(outcome, SignedOn):
            response = page("done.html") if outcome.url is None else _see_other(outcome.url)
            response.del_cookie(_COOKIE, path=self._cookie_path)
            return response
        values = {
            "id": outcome.id,
            "action": self._base_url + CONFIRM,
            "user_id": outcome.user_id,
            "place": described(outcome.redirect_url) if outcome.redirect_url else "",
            "deed": _deed(outcome.operation) if outcome.operation else "",
        }
        return self._remember(page("sso_question.html", values, leads_away=True), outcome.cookie)

    def _remember(self, response: web.Response, cookie: str) -> web.Response:
        response.set_cookie(
            _COOKIE,
            cookie,
            max_age=ATTEMPT_LIFETIME_MS // 1000,
            path=self._cookie_path,
            secure=self._is_https,
            httponly=True,
            samesite="Lax",
        )
        return response


def _redirect_url(request: Request) -> str:
    url = request.query.get("redirectUrl", "")
    try:
        check_redirect(url)
    except ValueError as error:
        raise SignOnFailed(str(error), status=400) from None
    return url


def _action(request: Request) -> dict[str, str]:
    action = request.query.get("action")
    return {"action": action} if action in ("login", "register") else {}


def _cookie(request: Request) -> str:
    return request.http.cookies.get(_COOKIE, "")


def _see_other(url: str) -> web.Response:
    """To another page, whose address is sent as the client or the provider wrote it."""
    headers = {"Location": url, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return web.Response(status=302, headers=headers)


def _choice(question: str, links: Sequence[tuple[str, str]]) -> web.Response:
    """Several ways to go on, each a name and a URL."""
    return page("sso_choice.html", {"question": question, "links": links})


def _deed(operation: Operation) -> str:
    path = operation.endpoint.partition(" ")[2]
    return _DEEDS.get(path, "log a device out of" if path.startswith("/devices/") else "change")
