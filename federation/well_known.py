"""A server's ``/.well-known/matrix/server``: fetching it, reading it, how long it holds.

Fetching is bounded in time, size and redirects, and leaves HTTPS never.  What an
answer leads to is decided in ``discovery``.  Specification: server-server API,
"Resolving server names", step 3.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from homeserver.protocol.canonical_json import InvalidJSON, decode
from homeserver.protocol.ids import ServerAddress, parse_server_name

MAX_BODY_BYTES: Final = 64 * 1024
MAX_REDIRECTS: Final = 5
TIMEOUT_SECONDS: Final = 15

DEFAULT_CACHE_SECONDS: Final = 24 * 3600
MAX_CACHE_SECONDS: Final = 48 * 3600
#: Below this an answer would be fetched anew for nearly every request.
MIN_CACHE_SECONDS: Final = 5 * 60

_MAX_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]{1,10})", re.IGNORECASE)
_UNCACHED = re.compile(r"\bno-(?:store|cache)\b", re.IGNORECASE)


class NoDelegation(Exception):
    """The host answered, and what it said delegates to nobody."""


class WellKnownResponse(msgspec.Struct, frozen=True):
    """What a host answered, redirects followed; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Delegation(msgspec.Struct, frozen=True):
    """Where a host says its server is, and for how many seconds that may be remembered."""

    address: ServerAddress
    cache_seconds: float


def read_well_known(response: WellKnownResponse, now_ms: int) -> Delegation:
    """The delegation an answer makes.

    Raises ``NoDelegation`` for an answer without a valid one, ``OSError`` for a
    status that says to ask again later.
    """
    if response.status == 429 or response.status >= 500:
        raise OSError(f"The host answered with status {response.status}")
    if response.status != 200:
        raise NoDelegation(f"The host answered with status {response.status}")
    try:
        content = decode(response.body)
        delegate = content.get("m.server") if isinstance(content, dict) else None
        if not isinstance(delegate, str):
            raise NoDelegation("The answer has no 'm.server'")
        address = parse_server_name(delegate)
    except InvalidJSON as error:
        raise NoDelegation("The answer is not JSON") from error
    except ValueError as error:
        raise NoDelegation("'m.server' is not a server name") from error
    return Delegation(address, cache_seconds(response.headers, now_ms))


def cache_seconds(headers: Mapping[str, str], now_ms: int) -> float:
    """How long an answer may be remembered by its cache headers, within this server's bounds."""
    seconds = _stated_cache_seconds(headers, now_ms)
    if seconds is None:
        return DEFAULT_CACHE_SECONDS
    return min(max(seconds, MIN_CACHE_SECONDS), MAX_CACHE_SECONDS)


def _stated_cache_seconds(headers: Mapping[str, str], now_ms: int) -> float | None:
    control = headers.get("cache-control", "")
    if _UNCACHED.search(control):
        return 0
    max_age = _MAX_AGE.search(control)
    if max_age is not None:
        return int(max_age[1])
    expires = headers.get("expires")
    if expires is None:
        return None
    try:
        return parsedate_to_datetime(expires).timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        # RFC 9111, 5.3: an invalid date, "0" above all, means already expired.
        return 0


async def fetch_well_known(session: aiohttp.ClientSession, hostname: str) -> WellKnownResponse:
    """Ask a host for its ``.well-known`` document.

    Raises ``OSError`` when it could not be asked or gave too much, or redirects
    too often or away from HTTPS.
    """
    url = URL(f"https://{hostname}/.well-known/matrix/server", encoded=True)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                async with session.get(url, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if response.status // 100 != 3 or location is None:
                        return await _response(response)
                url = url.join(URL(location))
                if url.scheme != "https":
                    raise OSError(f"{hostname} redirects away from HTTPS")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OSError(f"{hostname} could not be asked: {error}") from error
    raise OSError(f"{hostname} redirects too often")


async def _response(response: aiohttp.ClientResponse) -> WellKnownResponse:
    body = await response.content.read(MAX_BODY_BYTES + 1)
    while len(body) <= MAX_BODY_BYTES and not response.content.at_eof():
        body += await response.content.read(MAX_BODY_BYTES + 1 - len(body))
    if len(body) > MAX_BODY_BYTES:
        raise OSError("The answer is too large")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return WellKnownResponse(response.status, headers, body)
