"""What requests are answered with, and how it is written: JSON, other texts, streams, errors.

Nothing is decided here but how a reply looks on the wire.  Specification: "API Standards", "Standard
error response".
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec
import orjson
import structlog
from aiohttp import ClientError

from homeserver import aiohttp_web as web
from homeserver.errors import MatrixError
from homeserver.origins import Cors
from homeserver.refusals import internal_error, refusal_of
from homeserver.whole_replies import WholeReply, fits_whole_reply, header_lines

log = structlog.get_logger(__name__)

#: Of requests whose callers went away before they were answered.
CLIENT_CLOSED_REQUEST = 499

_JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_JSON_LINES = header_lines(_JSON_HEADERS)
#: How long the client may take for the next piece of a stream, in seconds.
_PIECE_PATIENCE = 60.0


class Json(msgspec.Struct, frozen=True):
    """A reply whose JSON is already encoded, or whose status is not 200."""

    body: bytes
    status: int = 200


class Text(msgspec.Struct, frozen=True):
    """A reply that is not JSON."""

    body: bytes
    content_type: str


class Stream(msgspec.Struct, frozen=True):
    """A reply that is sent in pieces, ``length`` bytes in all (``None``: nobody knows before the end).

    It carries no header but ``headers``.

    An error before the first piece is answered as any other; after that the connection is cut.
    """

    pieces: AsyncGenerator[bytes, None]
    length: int | None
    headers: Mapping[str, str]
    status: int = 200


Reply: TypeAlias = "dict[str, Any] | Json | Text | Stream | web.StreamResponse"


async def send_stream(http: web.BaseRequest, reply: Stream, cors: Cors) -> web.StreamResponse:
    """Send a stream, as fast as the client takes it; one that takes nothing is let go."""
    response = web.StreamResponse(status=reply.status, headers={**cors.headers, **reply.headers})
    if reply.status != 304 and reply.length is not None:
        response.content_length = reply.length
    async with aclosing(reply.pieces) as pieces:
        if http.method == "HEAD" or reply.length == 0:
            await response.prepare(http)
            return response
        piece = await anext(pieces)
        await response.prepare(http)
        try:
            async with asyncio.timeout(_PIECE_PATIENCE) as patience:
                await response.write(piece)
                async for piece in pieces:
                    patience.reschedule(asyncio.get_running_loop().time() + _PIECE_PATIENCE)
                    await response.write(piece)
        except TimeoutError:
            if http.transport is not None:
                http.transport.abort()
            raise ConnectionResetError("the client does not read") from None
    await response.write_eof()
    return response


def response_to(
    reply: dict[str, Any] | Json | Text | web.StreamResponse, http: web.BaseRequest, cors: Cors
) -> web.StreamResponse:
    """What aiohttp is given for a reply."""
    if isinstance(reply, dict):
        return _json(http, orjson.dumps(reply), 200, cors)
    if isinstance(reply, Json):
        return _json(http, reply.body, reply.status, cors)
    if isinstance(reply, Text):
        return web.Response(body=reply.body, headers={**cors.headers, "Content-Type": reply.content_type})
    if not reply.prepared:
        for name, value in cors.headers.items():
            reply.headers.setdefault(name, value)
    return reply


def _json(
    http: web.BaseRequest, body: bytes, status: int, cors: Cors, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    if fits_whole_reply(http, status):
        lines = (cors.lines, _JSON_LINES, header_lines(more)) if more else (cors.lines, _JSON_LINES)
        return WholeReply(status, lines, body)
    return web.Response(body=body, status=status, headers={**cors.headers, **_JSON_HEADERS, **(more or {})})


def error_response(error: Exception, http: web.BaseRequest, path: str, cors: Cors) -> web.StreamResponse:
    """The reply that says what went wrong, and the log line when it was a bug of ours."""
    disconnected = isinstance(error, ConnectionError | ClientError | web.RequestPayloadError)
    if disconnected and (http.transport is None or http.transport.is_closing()):
        return web.Response(status=CLIENT_CLOSED_REQUEST)
    answer = _as_matrix_error(error)
    if answer is None:
        log.error("request failed", method=http.method, path=path, exc_info=error)
        answer = internal_error()
    more = {}
    if answer.status == 429 and "retry_after_ms" in answer.fields:
        more["Retry-After"] = str(math.ceil(answer.fields["retry_after_ms"] / 1000))
    return _json(http, orjson.dumps(answer.body()), answer.status, cors, more)


def _as_matrix_error(error: Exception) -> MatrixError | None:
    if isinstance(error, web.RequestPayloadError):
        return MatrixError(400, "M_NOT_JSON", "The body could not be read")
    return refusal_of(error)
