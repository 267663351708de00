"""The way out over HTTP to whatever is not a homeserver: identity servers, push gateways, and the like.

Everything is bounded: the time until the answer is there, its size, and how much it is
made of.  Only addresses that the policy permits are connected to, no redirect is
followed, no cookie kept, no proxy asked.  What is asked and what an answer means
is its user's business.  Requests to homeservers are ``federation.transport``'s.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import aiohttp
import orjson
from yarl import URL

from homeserver.addresses import DENIED_BY_DEFAULT, AddressPolicy, AddressRefused, address_policy
from homeserver.bodies import has_too_many_values
from homeserver.config.egress import Egress as Settings
from homeserver.errors import RemoteError

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_MAX_BYTES: Final = 256 * 1024

_CONNECT_SECONDS: Final = 10
_MAX_CONNECTIONS: Final = 1000
_MAX_CONNECTIONS_PER_HOST: Final = 20
_USER_AGENT: Final = "Inglenook"
_MAX_URL: Final = 4_000
#: Objects and arrays, and values, of an answer: a stranger's JSON takes many times its size when decoded.
_MAX_CONTAINERS: Final = 10_000
_MAX_VALUES: Final = 50_000


def tls_context(extra_ca_file: Path | None = None) -> ssl.SSLContext:
    """Verifies certificates against the system's authorities, and those in ``extra_ca_file``."""
    context = ssl.create_default_context()
    if extra_ca_file is not None:
        context.load_verify_locations(cafile=extra_ca_file)
    return context


def open_session(policy: AddressPolicy, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """A session for asking other people's servers: no cookies, no proxy, only permitted addresses."""
    connector = aiohttp.TCPConnector(
        ssl=tls,
        socket_factory=policy.open_socket,
        limit=_MAX_CONNECTIONS,
        limit_per_host=_MAX_CONNECTIONS_PER_HOST,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        trust_env=False,
    )


class Bounds(TypedDict, total=False):
    """What a request may be given beside its URL and body; ``timeout`` in seconds covers everything."""

    headers: Mapping[str, str] | None
    timeout: float
    max_bytes: int


class Egress:
    """Asks HTTP servers for JSON.

    Each request returns the status and the JSON of the answer, whatever the status is;
    ``None`` for an answer that is not JSON.
    Raises ``RemoteError``, which names the host alone, for a URL that cannot be used, an
    address that is not permitted, an answer that does not come in time or is too large.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get_json(self, url: str, **bounds: Unpack[Bounds]) -> tuple[int, Any]:
        """``GET`` a URL."""
        return await self._request("GET", url, None, bounds)

    async def post_json(self, url: str, body: Any, **bounds: Unpack[Bounds]) -> tuple[int, Any]:
        """``POST`` a value as JSON."""
        return await self._request("POST", url, _json(body), bounds)

    async def put_json(self, url: str, body: Any, **bounds: Unpack[Bounds]) -> tuple[int, Any]:
        """``PUT`` a value as JSON."""
        return await self._request("PUT", url, _json(body), bounds)

    async def post_form(
        self, url: str, fields: Mapping[str, str], **bounds: Unpack[Bounds]
    ) -> tuple[int, Any]:
        """``POST`` fields as a form; the answer is JSON all the same."""
        return await self._request("POST", url, aiohttp.FormData(dict(fields))(), bounds)

    async def _request(
        self, method: str, url: str, body: aiohttp.payload.Payload | None, bounds: Bounds
    ) -> tuple[int, Any]:
        timeout = bounds.get("timeout", DEFAULT_TIMEOUT_SECONDS)
        max_bytes = bounds.get("max_bytes", DEFAULT_MAX_BYTES)
        headers = bounds.get("headers")
        address = _usable(url)
        host = address.host or ""
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(
                    method, address, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await _whole(host, response, max_bytes)
                return response.status, _value(host, answer)
        except TimeoutError as error:
            raise _unreachable(host, f"No answer within {timeout:g} seconds") from error
        except (aiohttp.ClientError, OSError) as error:
            refused = isinstance(error.__cause__, AddressRefused)
            raise _unreachable(host, f"The request failed: {error}", transient=not refused) from error


@dataclass(frozen=True, slots=True)
class WaysOut:
    """``strangers``: to URLs that anybody may have chosen; ``own``: to those of the configuration."""

    strangers: Egress
    own: Egress


def open_egress(settings: Settings, closing: AsyncExitStack) -> WaysOut:
    """Both ways; ``closing`` closes them."""
    policy = address_policy(DENIED_BY_DEFAULT, map(str, settings.allowed_addresses))
    tls = tls_context(settings.ca_file)
    strangers, own = open_session(policy, tls), open_session(address_policy(denied=()), tls)
    closing.push_async_callback(strangers.close)
    closing.push_async_callback(own.close)
    return WaysOut(Egress(strangers), Egress(own))


def _json(body: Any) -> aiohttp.payload.Payload:
    return aiohttp.BytesPayload(orjson.dumps(body), content_type="application/json")


def _usable(url: str) -> URL:
    try:
        address = URL(url)
    except ValueError:
        address = URL()
    if address.scheme not in ("http", "https") or not address.host or len(url) > _MAX_URL:
        raise RemoteError("", "The address is not a usable URL", reachable=False, transient=False)
    return address


async def _whole(host: str, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, decompressed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise RemoteError(
                host,
                f"The answer is larger than {max_bytes} bytes",
                reachable=True,
                transient=False,
                status=response.status,
            )
    return bytes(body)


def _value(host: str, answer: bytes) -> Any:
    if has_too_many_values(answer, _MAX_CONTAINERS, _MAX_VALUES):
        raise RemoteError(host, "The answer holds too many values", reachable=True, transient=False)
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None


def _unreachable(host: str, message: str, *, transient: bool = True) -> RemoteError:
    return RemoteError(host, message, reachable=False, transient=transient)
