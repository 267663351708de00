"""Which web pages may use the server from a browser: ``Origin`` and what is answered to it.

Callers show a token, never a cookie, so a page of any origin gains nothing that it does not bring along;
who runs a server may all the same want its own pages only.  Programs that are no browsers send no origin,
and are none of this module's business.  Specification: client-server API, "Web Browser Clients".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from homeserver.errors import forbidden

ANY: Final = "*"

_METHODS_AND_HEADERS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": ", ".join(
        (
            *("X-Requested-With", "Content-Type", "Authorization", "Date"),
            *("If-Match", "If-None-Match", "Last-Event-ID"),
        )
    ),
}
#: For everybody, where every origin is allowed.
CORS_HEADERS: Mapping[str, str] = {"Access-Control-Allow-Origin": ANY, **_METHODS_AND_HEADERS}
_FOR_OTHERS: Mapping[str, str] = {"Vary": "Origin"}


class Origins:
    """The ``allowed`` origins, such as ``https://app.example.org``; all where ``*`` is among them."""

    def __init__(self, allowed: Collection[str] = (ANY,)) -> None:
        self._any = ANY in allowed
        self._headers = {
            origin: {"Access-Control-Allow-Origin": origin, "Vary": "Origin", **_METHODS_AND_HEADERS}
            for origin in allowed
        }

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """What a reply carries; a browser shows it to the page only if the origin is allowed."""
        if self._any:
            return CORS_HEADERS
        return self._headers.get(origin or "", _FOR_OTHERS)

    def check(self, origin: str | None) -> None:
        """``M_FORBIDDEN`` for a page of another origin: browsers do not ask first before they connect."""
        if not self._any and origin is not None and origin not in self._headers:
            raise forbidden("Pages of this origin may not connect to this server")
