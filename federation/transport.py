"""Sending a request to another server and reading its answer, within bounds.

``Transport`` signs, and says whose fault it was when it did not work.  ``Https`` finds
the server, connects only where the address policy and the certificate allow, and
follows no redirects.
What is asked and what the answer means is ``client``'s.  It keeps no record of
which servers fail: backing off is the sender's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from federation.discovery import Destination, Destinations, NoService, NotPermitted
from federation.signatures import authorization_header
from homeserver.addresses import AddressRefused
from homeserver.bodies import MAX_CONTAINERS, MAX_VALUES, has_too_many_values
from homeserver.errors import RemoteError
from homeserver.protocol.canonical_json import InvalidJSON, decode, encode, parts
from homeserver.protocol.signing import SigningKey
from homeserver.turns import each_in_turns

#: Query parameters; a sequence repeats its name.
Query: TypeAlias = Mapping[str, str | Sequence[str]]

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_MAX_BYTES: Final = 10 * 1024 * 1024

#: Characters of what a server says went wrong, which is logged and shown to clients.
_MAX_MESSAGE: Final = 500
MAX_ERROR_BYTES: Final = 64 * 1024
#: Large answers are made of events, which have more bytes than that for each object or array, and each value.
_BYTES_A_CONTAINER: Final = 32
_BYTES_A_VALUE: Final = 8
#: To decode more bytes than this at once would hold up the event loop.
_LARGE: Final = 256 * 1024
#: ``Retry-After`` may also be a date, which no homeserver makes it.
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


def path_segment(value: str) -> str:
    """An identifier as one segment of a path."""
    return quote(value, safe="")


class WireRequest(msgspec.Struct, frozen=True):
    """A request as it leaves; ``uri`` is path and query, ``max_bytes`` bounds the body of a 200 response."""

    method: str
    server_name: str
    uri: str
    headers: Mapping[str, str]
    body: bytes | None
    max_bytes: int


#: Carries a request to its server: status and body of the response.  Raises ``RemoteError``.
Exchange: TypeAlias = Callable[[WireRequest], Awaitable[tuple[int, bytes]]]
#: The same for a body that is read in pieces.
OpenResponse: TypeAlias = Callable[[WireRequest], AbstractAsyncContextManager[aiohttp.ClientResponse]]


class Transport:
    """Sends requests in the name of one server; ``timeout`` in seconds is for those that name none.

    ``heard_from`` is told of each server that did what it was asked.
    """

    def __init__(
        self,
        *,
        server_name: str,
        key: SigningKey,
        exchange: Exchange,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        heard_from: Callable[[str], None] = lambda server_name: None,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._exchange = exchange
        self._timeout = timeout
        self._heard_from = heard_from

    async def send(
        self,
        method: str,
        server_name: str,
        path: str,
        *,
        query: Query | None = None,
        content: Mapping[str, Any] | bytes | None = None,
        timeout: float | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        signed: bool = True,
    ) -> Any:
        """The parsed JSON of a 200 response.

        ``path`` is percent-encoded and without query; ``content`` an object, or
        bytes that are canonical JSON already.  ``timeout`` is in seconds and covers
        everything (by default what the transport was made with).  Raises ``RemoteError``.
        """
        uri = path if not query else f"{path}?{urlencode(query, doseq=True, quote_via=quote, safe='')}"
        body = content if isinstance(content, bytes) or content is None else encode(content)
        headers = {} if body is None else {"Content-Type": "application/json"}
        if signed:
            headers["Authorization"] = authorization_header(
                method=method,
                uri=uri,
                origin=self._server_name,
                destination=server_name,
                body=body,
                key=self._key,
            )
        timeout = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(timeout):
                request = WireRequest(method, server_name, uri, headers, body, max_bytes)
                status, reply = await self._exchange(request)
        except TimeoutError as error:
            raise unreachable(server_name, f"No answer within {timeout:g} seconds") from error
        if status != 200:
            raise refusal(server_name, status, reply)
        if _is_made_of_little(reply):
            raise malformed(server_name, "The response holds too many values")
        try:
            content = decode(reply) if len(reply) < _LARGE else await _decoded_in_turns(reply)
        except InvalidJSON as error:
            raise malformed(server_name, "The response is not JSON") from error
        self._heard_from(server_name)
        return content


class Https:
    """Carries requests over the network."""

    def __init__(self, discovery: Destinations, session: aiohttp.ClientSession) -> None:
        self._discovery = discovery
        self.session = session

    async def exchange(self, request: WireRequest) -> tuple[int, bytes]:
        """Status and body from the first destination that can be connected to."""
        async with self.open(request) as response:
            limit = request.max_bytes if response.status == 200 else MAX_ERROR_BYTES
            body = await read_body(request.server_name, response, limit)
        if response.status == 429:
            raise refusal(request.server_name, 429, body, response.headers.get("Retry-After"))
        return response.status, body

    @asynccontextmanager
    async def open(self, request: WireRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response of the first destination that can be connected to; its body is still to be read."""
        server_name = request.server_name
        failure: RemoteError | None = None
        for destination in await self._destinations(server_name):
            try:
                async with self.session.request(
                    request.method,
                    _url(destination, request.uri),
                    headers={**request.headers, "Host": destination.host_header},
                    data=request.body,
                    allow_redirects=False,
                    server_hostname=destination.tls_name,
                ) as response:
                    yield response
                    return
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                failure = failure or _not_connected(server_name, error)
            except aiohttp.ClientError as error:
                raise unreachable(server_name, f"The connection failed: {error}") from error
        raise failure or unreachable(server_name, "There is nowhere to connect to")

    async def _destinations(self, server_name: str) -> list[Destination]:
        try:
            return await self._discovery.destinations(server_name)
        except (ValueError, NoService) as error:
            raise unreachable(server_name, str(error), transient=False) from error
        except NotPermitted as error:
            # Nobody's failure: whoever asked gets a refusal.
            raise RemoteError(
                server_name, str(error), reachable=False, transient=False, status=403, errcode="M_FORBIDDEN"
            ) from error


def unreachable(server_name: str, message: str, *, transient: bool = True) -> RemoteError:
    """The server did not answer."""
    return RemoteError(server_name, message, reachable=False, transient=transient)


def malformed(server_name: str, message: str) -> RemoteError:
    """The server answered with something that cannot be used."""
    return RemoteError(server_name, message, reachable=True, transient=False)


def _url(destination: Destination, uri: str) -> URL:
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    return URL(f"https://{host}:{destination.port}{uri}", encoded=True)


def _is_made_of_little(reply: bytes) -> bool:
    """Whether JSON would take many times its size once it is decoded."""
    return has_too_many_values(
        reply, MAX_CONTAINERS + len(reply) // _BYTES_A_CONTAINER, MAX_VALUES + len(reply) // _BYTES_A_VALUE
    )


async def _decoded_in_turns(reply: bytes) -> Any:
    """``decode`` of a reply whose bulk is in the lists of one object; raises ``InvalidJSON``."""
    await asyncio.sleep(0)  # to have counted its values took some time, too
    whole = parts(reply)
    if not isinstance(whole, dict):
        return decode(reply)
    decoded: dict[str, Any] = {}
    for name, raw in whole.items():
        await asyncio.sleep(0)
        items = parts(raw)
        decoded[name] = await each_in_turns(decode, items) if isinstance(items, list) else decode(raw)
    return decoded


async def read_body(server_name: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, decompressed, within ``limit`` bytes."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise RemoteError(
                server_name,
                f"The response is larger than {limit} bytes",
                reachable=True,
                transient=False,
                status=response.status,
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _not_connected(server_name: str, error: Exception) -> RemoteError:
    refused = isinstance(error.__cause__, AddressRefused)
    return unreachable(server_name, f"The connection could not be made: {error}", transient=not refused)


def refusal(server_name: str, status: int, body: bytes, retry_after: str | None = None) -> RemoteError:
    """What a status other than 200 says, with the Matrix error if the body holds one.

    ``retry_after`` is the header of that name.
    """
    errcode, message = None, f"The server answered with status {status}"
    seconds = _SECONDS.fullmatch(retry_after or "")
    retry_after_ms = int(seconds[0]) * 1000 if seconds else None
    try:
        reply = decode(body)
    except InvalidJSON:
        reply = None
    if isinstance(reply, dict):
        if isinstance(reply.get("errcode"), str):
            errcode = reply["errcode"][:_MAX_MESSAGE]
        if isinstance(reply.get("error"), str):
            message = reply["error"][:_MAX_MESSAGE]
        if retry_after_ms is None and _is_short_wait(reply.get("retry_after_ms")):
            retry_after_ms = reply["retry_after_ms"]
    return RemoteError(
        server_name,
        message,
        reachable=True,
        transient=status == 429 or status >= 500,
        status=status,
        errcode=errcode,
        retry_after_ms=retry_after_ms,
    )


def _is_short_wait(value: Any) -> bool:
    """Whether this is a number of milliseconds, of a day at most."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 24 * 3600 * 1000
