"""Rendezvous sessions as MSC4108 had them in 2024: plain text, and ETags that say what was seen last.

Kept for the clients that came before MSC4388; Element X and Element Web are among them.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Any

import orjson

from client_api.rendezvous import check_is_not_opened, may_create
from homeserver import aiohttp_web as web
from homeserver.config.rendezvous import Rendezvous
from homeserver.errors import forbidden, invalid_param, missing_param
from homeserver.replies import Reply
from homeserver.users.rendezvous import ConcurrentWrite, RendezvousSessions, Session
from homeserver.web import Request

PATH = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"

_TEXT = "text/plain"
_STRONG_ETAG = re.compile(r'"([^"]{1,255})"')
#: Weak ones are compared with too, since proxies make such of strong ones that they have compressed.
_ANY_ETAG = re.compile(r'(?:W/)?"([^"]{1,255})"')


class EtagRendezvousApi:
    """The endpoints; ``base_url`` is where clients reach this server."""

    def __init__(self, settings: Rendezvous, sessions: RendezvousSessions, base_url: str) -> None:
        self._settings = settings
        self._sessions = sessions
        self._base_url = base_url

    @property
    def enabled(self) -> bool:
        """Whether there are such sessions here at all."""
        return self._settings.enabled

    async def create(self, request: Request) -> Reply:
        """``POST /rendezvous``."""
        if not may_create(request, self._settings):
            raise forbidden("Only users of this server may create rendezvous sessions")
        _check_is_text(request)
        session = self._sessions.create(request.body)
        return _json(201, {"url": f"{self._base_url}{PATH}/{session.id}"}, session)

    async def replace(self, request: Request) -> Reply:
        """``PUT`` of the URL of a session."""
        id_ = request.params["rendezvousId"]
        self._sessions.session(id_)
        _check_is_text(request)
        seen = _seen_by_writer(request)
        try:
            session = self._sessions.replace(id_, seen, request.body)
        except ConcurrentWrite as refusal:
            return _json(
                412,
                {
                    "errcode": "M_UNKNOWN",
                    "org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE",
                    "error": "The payload is another by now",
                },
                refusal.session,
            )
        return web.Response(status=202, headers={"Content-Type": _TEXT, **_headers(session)})

    async def payload(self, request: Request) -> Reply:
        """``GET`` of the URL of a session: 304 while it holds what was seen already."""
        check_is_not_opened(request)
        session = self._sessions.session(request.params["rendezvousId"])
        seen = request.headers.get("If-None-Match", "")
        if seen.strip() == "*" or session.token in _ANY_ETAG.findall(seen):
            return web.Response(status=304, headers=_headers(session))
        # Clients look for just this content type: a charset would make them ask for ever.
        return web.Response(body=session.payload, headers={"Content-Type": _TEXT, **_headers(session)})

    async def remove(self, request: Request) -> Reply:
        """``DELETE`` of the URL of a session."""
        self._sessions.remove(request.params["rendezvousId"])
        return web.Response(status=204)


def _check_is_text(request: Request) -> None:
    if "Content-Length" not in request.headers:
        raise missing_param("The header 'Content-Length' is missing")
    if "Content-Type" not in request.headers:
        raise missing_param("The header 'Content-Type' is missing")
    if request.headers["Content-Type"].partition(";")[0].strip().lower() != _TEXT:
        raise invalid_param(f"The content type must be {_TEXT}")


def _seen_by_writer(request: Request) -> str:
    """The token that ``If-Match`` says, which must be one strong ETag."""
    if "If-Match" not in request.headers:
        raise missing_param("The header 'If-Match' is missing")
    match = _STRONG_ETAG.fullmatch(request.headers["If-Match"].strip())
    if match is None:
        raise invalid_param("'If-Match' must be one strong ETag")
    return match[1]


def _json(status: int, body: dict[str, Any], session: Session) -> web.Response:
    headers = {"Content-Type": "application/json", **_headers(session)}
    return web.Response(status=status, body=orjson.dumps(body), headers=headers)


def _headers(session: Session) -> dict[str, str]:
    """Those that replies about a session have in common, readable for pages of other origins."""
    return {
        "ETag": f'"{session.token}"',
        "Expires": formatdate(session.expires_ts / 1000, usegmt=True),
        "Last-Modified": formatdate(session.modified_ts / 1000, usegmt=True),
        "Cache-Control": "no-store",
        "Pragma": "no-cache",
        "Access-Control-Expose-Headers": "ETag",
        "X-Content-Type-Options": "nosniff",
    }
