"""Which web pages may use the server from a browser: ``Origin`` and what is answered to it.

Callers show a token, never a cookie, so a page of any origin gains nothing that it does not bring along;
who runs a server may all the same want its own pages only.  Programs that are no browsers send no origin,
and are none of this module's business.  Specification: client-server API, "Web Browser Clients".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from homeserver.errors import forbidden
from homeserver.whole_replies import header_lines

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


class Cors(msgspec.Struct, frozen=True):
    """What a reply says to a browser: its headers, and the same as lines that are ready to be sent."""

    headers: Mapping[str, str]
    lines: bytes


def _cors(headers: Mapping[str, str]) -> Cors:
    return Cors(headers, header_lines(headers))


_FOR_EVERYBODY = _cors({"Access-Control-Allow-Origin": ANY, **_METHODS_AND_HEADERS})
_FOR_OTHERS = _cors({"Vary": "Origin"})


class Origins:
    """The ``allowed`` origins, such as ``https://app.example.org``; all where ``*`` is among them."""

    def __init__(self, allowed: Collection[str] = (ANY,)) -> None:
        self._any = ANY in allowed
        self._headers = {
            origin: _cors({"Access-Control-Allow-Origin": origin, "Vary": "Origin", **_METHODS_AND_HEADERS})
            for origin in allowed
        }

    def cors(self, origin: str | None) -> Cors:
        """What a reply carries; a browser shows it to the page only if the origin is allowed."""
        if self._any:
            return _FOR_EVERYBODY
        return self._headers.get(origin or "", _FOR_OTHERS)

    def check(self, origin: str | None) -> None:
        """``M_FORBIDDEN`` for a page of another origin: browsers do not ask first before they connect."""
        if not self._any and origin is not None and origin not in self._headers:
            raise forbidden("Pages of this origin may not connect to this server")
