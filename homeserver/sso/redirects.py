"""Where a client wants its user sent back to: whether that can be, and whether it is trusted.

Who controls the address gets the login token, so addresses are compared as browsers
read them, and what browsers could read in another way is never trusted.
Specification: client-server API, "SSO client login/authentication", security considerations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote_plus, urlsplit

MAX_BYTES = 2_000

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[^\s\x00-\x20\x7f\\]+")
#: Schemes whose URLs do something in the browser instead of leading anywhere.
_NEVER = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "view-source", "filesystem"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOGIN_TOKEN = "loginToken"


def check_redirect(url: str) -> None:
    """``ValueError``, with a sentence, for what nobody can or should be sent to."""
    found = _URL.fullmatch(url)
    try:
        too_long = len(url.encode()) > MAX_BYTES
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("The client's address is not a URL") from None
    if found is None or port == 0:
        raise ValueError("The client's address is not a URL")
    if too_long:
        raise ValueError("The client's address is too long")
    scheme = found[1].lower()
    if scheme in _NEVER or (scheme in _DEFAULT_PORTS and not parts.hostname):
        raise ValueError("Nobody can be sent to the client's address")


def described(url: str) -> str:
    """Where a URL leads, in the words that matter: its host, or the kind of link."""
    parts = urlsplit(url)
    if parts.scheme.lower() in _DEFAULT_PORTS:
        host = parts.hostname or ""
        return (
            f"{host}:{parts.port}" if parts.port not in (None, _DEFAULT_PORTS[parts.scheme.lower()]) else host
        )
    return f"the app that opens {parts.scheme.lower()}: links"


def is_trusted(url: str, trusted: Iterable[str]) -> bool:
    """Whether a URL that passed ``check_redirect`` begins with one of those that are trusted.

    At its parts' ends: ``https://a.org/app`` is the beginning of ``https://a.org/app/x``, of
    ``https://a.org/apple`` it is not.
    """
    parts = urlsplit(url)
    # Of two ways to write a path browsers make one, which may be another than the trusted.
    if re.search(r"(^|/)(\.|%2e){1,2}(/|$)", parts.path, re.IGNORECASE) or "@" in parts.netloc:
        return False
    return any(_begins_with(parts, urlsplit(beginning)) for beginning in trusted)


def _begins_with(url: SplitResult, beginning: SplitResult) -> bool:
    if _place(url) != _place(beginning):
        return False
    path, start = url.path, beginning.path
    if beginning.query or beginning.fragment:
        return (path, url.query, url.fragment) == (start, beginning.query, beginning.fragment)
    return path == start or path.startswith(start if start.endswith("/") else start + "/") or not start


def _place(url: SplitResult) -> tuple[str, str, int | None]:
    scheme = url.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        return scheme, url.netloc, None
    return scheme, (url.hostname or "").rstrip("."), url.port or _DEFAULT_PORTS[scheme]


def with_login_token(url: str, token: str) -> str:
    """The URL with the token in its query, in place of any that is there; the rest stays as written."""
    address, mark, fragment = url.partition("#")
    base, _, query = address.partition("?")
    kept = [
        each for each in query.split("&") if each and unquote_plus(each.partition("=")[0]) != _LOGIN_TOKEN
    ]
    return f"{base}?{'&'.join([*kept, f'{_LOGIN_TOKEN}={token}'])}{mark}{fragment}"
