"""Media of other servers, fetched (server-server API, "Content repository").

The other server chooses what is sent, how much of it, and where else it is to be had:
size and time are bounded, and a redirect goes to public addresses over HTTPS and tells
nobody who asks.  What becomes of the content is the caller's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from federation.client import is_unrecognized
from federation.multipart import MalformedMultipart, MultipartParser, PartHead
from federation.signatures import authorization_header
from federation.transport import (
    MAX_ERROR_BYTES,
    OpenResponse,
    WireRequest,
    malformed,
    path_segment,
    read_body,
    refusal,
    unreachable,
)
from homeserver.errors import MatrixError, RemoteError, not_found
from homeserver.media.headers import boundary, content_type, disposition_filename
from homeserver.media.mxc import Mxc
from homeserver.media.remote import Described
from homeserver.protocol.signing import SigningKey

#: For everything from the first question to the last byte, in seconds.
TIMEOUT_SECONDS: Final = 300.0
MAX_REDIRECTS: Final = 5
_MAX_METADATA_BYTES: Final = 64 * 1024
#: Compressed content would be bounded only after it was decompressed.
_HEADERS: Final = {"Accept-Encoding": "identity"}

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
#: Opens an address outside Matrix, without following redirects.
OpenUrl: TypeAlias = Callable[[URL], AbstractAsyncContextManager[aiohttp.ClientResponse]]


def open_url(session: aiohttp.ClientSession) -> OpenUrl:
    """Asks nothing but ``GET``, with nothing that tells who asks; ``session`` judges the addresses."""

    def get(url: URL) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return session.get(url, allow_redirects=False, headers=_HEADERS)

    return get


class FederationMedia:
    """Fetches media in the name of one server."""

    def __init__(
        self,
        *,
        server_name: str,
        key: SigningKey,
        open_response: OpenResponse,
        open_url: OpenUrl,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._open_response = open_response
        self._open_url = open_url
        self._timeout = timeout

    async def fetch(self, mxc: Mxc, write: Write, *, max_bytes: int, wait_ms: int) -> Described:
        """See ``homeserver.media.remote.RemoteMedia``."""
        sink = _Sink(write, max_bytes)
        timeout = self._timeout + wait_ms / 1000
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(mxc, sink, wait_ms)
        except TimeoutError as error:
            raise unreachable(mxc.server_name, f"No media within {timeout:g} seconds") from error
        except aiohttp.ClientError as error:
            # Without the particulars: whoever asks is not to learn what is behind our own walls.
            raise unreachable(mxc.server_name, "The connection failed") from error
        except MalformedMultipart as error:
            raise malformed(mxc.server_name, str(error)) from error
        except RemoteError as error:
            raise _verdict(error) from error

    async def _fetch(self, mxc: Mxc, sink: _Sink, wait_ms: int) -> Described:
        try:
            described = await self._from_federation(mxc, sink, wait_ms)
        except RemoteError as error:
            if not is_unrecognized(error):
                raise
            return await self._from_deprecated(mxc, sink, wait_ms)
        if isinstance(described, Described):
            return described
        return await self._from_elsewhere(mxc, described, sink)

    async def _from_federation(self, mxc: Mxc, sink: _Sink, wait_ms: int) -> Described | URL:
        """The content, or where it is to be had."""
        path = f"/_matrix/federation/v1/media/download/{path_segment(mxc.media_id)}"
        request = self._request(mxc, path, {"timeout_ms": str(wait_ms)}, signed=True)
        async with self._open_response(request) as response:
            await _check_status(mxc, response)
            separator = boundary(response.headers.get("Content-Type"))
            if separator is None:
                raise malformed(mxc.server_name, "The response is not multipart/mixed with a boundary")
            head = await _second_part(response.content.iter_any(), MultipartParser(separator), sink)
        location = head.get("location")
        return _described(head) if location is None else _public_url(mxc, URL(), location)

    async def _from_deprecated(self, mxc: Mxc, sink: _Sink, wait_ms: int) -> Described:
        """COMPAT: servers of before version 1.11 give media to anybody, and only so."""
        path = f"/_matrix/media/v3/download/{path_segment(mxc.server_name)}/{path_segment(mxc.media_id)}"
        query = {"allow_remote": "false", "timeout_ms": str(wait_ms)}
        async with self._open_response(self._request(mxc, path, query, signed=False)) as response:
            return await _whole(mxc, response, sink)

    async def _from_elsewhere(self, mxc: Mxc, url: URL, sink: _Sink) -> Described:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._open_url(url) as response:
                location = response.headers.get("Location")
                if response.status // 100 != 3 or location is None:
                    return await _whole(mxc, response, sink)
            url = _public_url(mxc, url, location)
        raise malformed(mxc.server_name, "The media is redirected too often")

    def _request(self, mxc: Mxc, path: str, query: Mapping[str, str], *, signed: bool) -> WireRequest:
        uri = f"{path}?{urlencode(query)}"
        headers = dict(_HEADERS)
        if signed:
            headers["Authorization"] = authorization_header(
                method="GET",
                uri=uri,
                origin=self._server_name,
                destination=mxc.server_name,
                body=None,
                key=self._key,
            )
        return WireRequest("GET", mxc.server_name, uri, headers, None, 0)


class _Sink:
    """Passes content on, as much of it as is allowed."""

    def __init__(self, write: Write, max_bytes: int) -> None:
        self._write = write
        self._left = max_bytes

    def expect(self, size: int | None) -> None:
        """502 ``M_TOO_LARGE`` for content that says beforehand that it will be too much."""
        if size is not None and size > self._left:
            raise _too_large()

    async def write(self, data: bytes) -> None:
        """Pass on a piece; 502 ``M_TOO_LARGE``."""
        self.expect(len(data))
        self._left -= len(data)
        await self._write(data)


async def _second_part(body: AsyncIterator[bytes], parser: MultipartParser, sink: _Sink) -> Mapping[str, str]:
    """Read a body of two parts: metadata, and content for the sink.  Returns the head of the second."""
    heads: list[PartHead] = []
    no_content = 0
    async for data in body:
        for piece in parser.feed(data):
            if isinstance(piece, PartHead):
                heads.append(piece)
                if len(heads) > 2:
                    raise MalformedMultipart("There are more than two parts")
            elif len(heads) == 2 and "location" not in heads[1].headers:
                await sink.write(piece)
            else:
                no_content += len(piece)
                if no_content > _MAX_METADATA_BYTES:
                    raise MalformedMultipart("There is too much beside the content")
        if parser.at_end:
            break
    parser.finish()
    if len(heads) != 2:
        raise MalformedMultipart("There are less than two parts")
    return heads[1].headers


async def _whole(mxc: Mxc, response: aiohttp.ClientResponse, sink: _Sink) -> Described:
    """A response whose body is the content."""
    await _check_status(mxc, response)
    sink.expect(response.content_length)
    async for data in response.content.iter_any():
        await sink.write(data)
    return _described({name.lower(): value for name, value in response.headers.items()})


async def _check_status(mxc: Mxc, response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        body = await read_body(mxc.server_name, response, MAX_ERROR_BYTES)
        raise refusal(mxc.server_name, response.status, body)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise malformed(mxc.server_name, "The response is compressed, which was not asked for")


def _described(headers: Mapping[str, str]) -> Described:
    return Described(
        content_type(headers.get("content-type")), disposition_filename(headers.get("content-disposition"))
    )


def _public_url(mxc: Mxc, base: URL, location: str) -> URL:
    """Where a redirect leads; only HTTPS, and nothing that would identify the caller."""
    try:
        url = base.join(URL(location)) if base.host else URL(location)
        # Reading a name that only pretends to be encoded fails, too.
        host = url.host
    except ValueError:
        raise malformed(mxc.server_name, "The media is redirected to what is no URL") from None
    if url.scheme != "https" or not host or url.user is not None or url.password is not None:
        raise malformed(mxc.server_name, "The media is redirected away from public HTTPS")
    return url


def _verdict(error: RemoteError) -> Exception:
    """What a server's refusal means to whoever asked for its media."""
    if error.errcode == "M_TOO_LARGE":
        return _too_large()
    if error.errcode == "M_NOT_YET_UPLOADED":
        return MatrixError(504, "M_NOT_YET_UPLOADED", error.message)
    if error.errcode == "M_NOT_FOUND" or error.status in (404, 410):
        return not_found("The other server has no such media")
    return error


def _too_large() -> MatrixError:
    return MatrixError(502, "M_TOO_LARGE", "The other server's media is larger than this one fetches")
