"""The way out over HTTP to whatever is not a homeserver: identity servers, push gateways, and the like.

Everything is bounded: the time until the answer is there, its size, and how much it is
made of.  Only addresses that the policy permits are connected to, redirects are
followed only for pages, no cookie is kept, no proxy asked.  What is asked and what an answer means
is its user's business.  Requests to homeservers are ``federation.transport``'s.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import aiohttp
import msgspec
import orjson
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from homeserver.addresses import DENIED_BY_DEFAULT, AddressPolicy, AddressRefused, address_policy
from homeserver.bodies import has_too_many_values
from homeserver.config.egress import Egress as Settings
from homeserver.errors import RemoteError
from homeserver.resolver import SystemResolver

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_MAX_BYTES: Final = 256 * 1024

_CONNECT_SECONDS: Final = 10
_MAX_CONNECTIONS: Final = 1000
_MAX_CONNECTIONS_PER_HOST: Final = 20
_USER_AGENT: Final = "Inglenook"
_MAX_URL: Final = 4_000
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
#: Objects and arrays, and values, of an answer: a stranger's JSON takes many times its size when decoded.
_MAX_CONTAINERS: Final = 10_000
_MAX_VALUES: Final = 50_000


#: Contexts of ``tls_context`` that do not have the system's authorities yet.
_UNREAD: set[ssl.SSLContext] = set()


@cache
def tls_context(extra_ca_file: Path | None = None, *, verifies: bool = True) -> ssl.SSLContext:
    """Verifies certificates against the system's authorities, and those in ``extra_ca_file``.

    One for all who ask alike, not to be changed by them: the system's authorities fill a MiB
    and take a tenth of a second to read, which a session does before its first connection over TLS.
    """
    # Where it is given none at all, Python reads the system's now.
    context = ssl.create_default_context(cafile=extra_ca_file, capath=os.devnull)
    if verifies:
        _UNREAD.add(context)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def open_session(
    policy: AddressPolicy, tls: ssl.SSLContext, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session for asking other people's servers: no cookies, no proxy, only permitted addresses.

    ``resolver`` is the way from names to addresses, by default the system's.
    """
    connector = _Connector(
        tls,
        resolver=resolver or SystemResolver(),
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


class _Connector(aiohttp.TCPConnector):
    """Reads the system's authorities when they are first needed, and not in the event loop."""

    def __init__(self, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(ssl=tls, **options)
        self._tls = tls

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A connection, perhaps one that is open already."""
        if self._tls in _UNREAD and req.is_ssl():
            # Others may do the same meanwhile; nobody goes on before they are there.
            await asyncio.to_thread(self._tls.load_default_certs)
            _UNREAD.discard(self._tls)
        return await super().connect(req, traces, timeout)


class Bounds(TypedDict, total=False):
    """What a request may be given beside its URL and body; ``timeout`` in seconds covers everything."""

    headers: Mapping[str, str] | None
    timeout: float
    max_bytes: int


class Page(msgspec.Struct, frozen=True):
    """An answer that may be anything; ``body`` is its beginning where not ``is_whole``."""

    #: Where it was found, after all redirects.
    url: str
    status: int
    #: In lower case, without parameters; ``application/octet-stream`` where the server does not say.
    content_type: str
    charset: str | None
    body: bytes
    is_whole: bool


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

    async def get_page(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        max_bytes: Callable[[str], int],
        permits: Callable[[str, int, str], bool],
    ) -> Page:
        """``GET`` whatever is at a URL, whose redirects are followed.

        ``permits`` is asked of every host, port and path on the way; ``max_bytes`` says how much is read of
        a content type.  A URL with a user's name or password is refused.  ``timeout`` covers everything.
        """
        address = _usable(url)
        host = address.host or ""
        try:
            async with asyncio.timeout(timeout):
                for _ in range(_MAX_REDIRECTS + 1):
                    if address.raw_user or address.raw_password:
                        raise _unreachable(host, "The address holds credentials", transient=False)
                    # A name counts in both its forms: as people read it, and as it is encoded.
                    forms = {address.host or "", address.raw_host or ""}
                    if not all(permits(form, address.port or 0, address.path) for form in forms):
                        raise _unreachable(host, "The address is not permitted", transient=False)
                    answer = await self._page(address, headers, max_bytes)
                    if isinstance(answer, Page):
                        return answer
                    address = _usable(answer)
        except TimeoutError as error:
            raise _unreachable(host, f"No answer within {timeout:g} seconds") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(host, f"The request failed: {error}") from error
        raise _unreachable(host, "There are too many redirects", transient=False)

    async def _page(
        self, address: URL, headers: Mapping[str, str], max_bytes: Callable[[str], int]
    ) -> Page | str:
        """The answer, or where it redirects to."""
        sent = {"Accept-Encoding": "gzip, deflate", **headers}
        async with self._session.get(address, headers=sent, allow_redirects=False) as response:
            if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                try:
                    return str(address.join(URL(location)))
                except ValueError:
                    raise _unreachable(address.host or "", "It redirects to no usable URL") from None
            body, is_whole = await _beginning(response, max_bytes(response.content_type))
            return Page(
                url=str(address),
                status=response.status,
                content_type=_ascii(response.content_type),
                charset=_ascii(response.charset or "") or None,
                body=body,
                is_whole=is_whole,
            )

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


class WaysOut(msgspec.Struct, frozen=True):
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
        # Reading a name that only pretends to be encoded fails, too.
        host = address.host
    except ValueError:
        address, host = URL(), None
    if address.scheme not in ("http", "https") or not host or len(url) > _MAX_URL:
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


async def _beginning(response: aiohttp.ClientResponse, length: int) -> tuple[bytes, bool]:
    """The first bytes of a body, decompressed, and whether they are all."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > length:
            return bytes(body[:length]), False
    return bytes(body), True


def _ascii(header: str) -> str:
    """A header's text without what has no place in it, such as bytes that are not UTF-8."""
    return header.encode("ascii", "ignore").decode()


def _value(host: str, answer: bytes) -> Any:
    if has_too_many_values(answer, _MAX_CONTAINERS, _MAX_VALUES):
        raise RemoteError(host, "The answer holds too many values", reachable=True, transient=False)
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None


def _unreachable(host: str, message: str, *, transient: bool = True) -> RemoteError:
    return RemoteError(host, message, reachable=False, transient=transient)
