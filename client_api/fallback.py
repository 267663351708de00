"""Web pages for stages of interactive authentication that a client does not know.

A person completes the stage in a browser; the client then goes on with its session alone.
Specification: client-server API, "Fallback".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from client_api.pages import form_fields, page, refusal_page
from homeserver.errors import MatrixError, RemoteError, not_found
from homeserver.replies import Reply
from homeserver.users.interactive_auth import InteractiveAuth
from homeserver.users.registration import DUMMY, RECAPTCHA, REGISTRATION_TOKEN, TERMS
from homeserver.web import Request

#: Answers the GET request of a stage that has a way of its own; the session is in the query.
Elsewhere: TypeAlias = Callable[[Request], Awaitable[Reply]]

#: By stage: the page, and which field of its form is which field of ``auth``.
_PAGES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    TERMS: ("terms.html", {}),
    RECAPTCHA: ("recaptcha.html", {"g-recaptcha-response": "response"}),
    REGISTRATION_TOKEN: ("registration_token.html", {"token": "token"}),
    DUMMY: ("dummy.html", {}),
}


class FallbackApi:
    """The pages; ``elsewhere`` has stages that lead somewhere else, by their types."""

    def __init__(self, interactive_auth: InteractiveAuth, *, captcha_script: str | None = None) -> None:
        self._interactive_auth = interactive_auth
        self._captcha_script = captcha_script
        self.elsewhere: dict[str, Elsewhere] = {}

    async def show(self, request: Request) -> Reply:
        """``GET /auth/{authType}/fallback/web``."""
        stage = request.params["authType"]
        if stage in self.elsewhere:
            return await self.elsewhere[stage](request)
        try:
            session = request.query_text("session")
            self._interactive_auth.awaits(session, stage)
            return self._page(stage, session)
        except MatrixError as error:
            return refusal_page(error)

    async def submit(self, request: Request) -> Reply:
        """``POST /auth/{authType}/fallback/web``: what a person entered on the page."""
        stage, fields = request.params["authType"], form_fields(request.body)
        session = fields.get("session", "")
        try:
            template = _PAGES.get(stage)
            if template is None:
                raise not_found("There is no page for that")
            auth = {name: fields[field] for field, name in template[1].items() if field in fields}
            self._interactive_auth.awaits(session, stage)
        except MatrixError as error:
            return refusal_page(error)
        try:
            await self._interactive_auth.answer(session, stage, auth)
        except MatrixError as error:
            return self._page(stage, session, message=error.message, status=error.status)
        except RemoteError:
            return self._page(stage, session, message="This cannot be checked at the moment", status=502)
        return page("done.html")

    def _page(self, stage: str, session: str, *, message: str = "", status: int = 200) -> Reply:
        """The page of a stage; raises ``M_NOT_FOUND`` where there is none."""
        known = self._interactive_auth.stages.get(stage)
        if known is None or stage not in _PAGES:
            raise not_found("There is no page for that")
        values: dict[str, Any] = {
            **known.params(session),
            "session": session,
            "message": message,
            "script": self._captcha_script,
        }
        if stage == TERMS:
            values["documents"] = _documents(values["policies"])
        frames = self._captcha_script if stage == RECAPTCHA else None
        return page(_PAGES[stage][0], values, status=status, frames=frames)


def _documents(policies: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, str]]:
    """Name and URL of each document, in English where there is that."""
    shown = []
    for policy in policies.values():
        languages = {name: text for name, text in policy.items() if name != "version"}
        shown.append(languages.get("en") or next(iter(languages.values())))
    return shown
