"""``GET /sync/sse``: responses of ``/sync`` as server-sent events.

Each event's id is its ``next_batch``, with which a browser comes back by itself after whatever cut the
stream.  Nothing is repeated or kept here: a stream that breaks in the middle of an event is gone on with
from the event before.  Specification: MSC2108; HTML, "Server-sent events".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeAlias

import orjson
import structlog

from client_api.live.patience import notice_silence, patience_for
from client_api.live.streaming import Streaming
from homeserver import aiohttp_web as web
from homeserver.errors import MatrixError, limit_exceeded
from homeserver.live import EVENT_SOURCE, LiveStream
from homeserver.refusals import internal_error, refusal_of
from homeserver.replies import Reply
from homeserver.sync.request import SyncRequest
from homeserver.web import Request

log = structlog.get_logger(__name__)

HEARTBEAT: Final = b": \n\n"
_MAX_HEARTBEAT_S = 120
#: How long browsers wait before they come back, in milliseconds.
_RETRY_MS = 2_000
#: The same for a stream that was one too many.
_RETRY_REPLACED_MS = 60_000
#: Proxies are told to pass on what comes, as it comes.
_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

_Write: TypeAlias = Callable[[bytes], Awaitable[None]]


class _TooSlow(Exception):
    """The client does not read."""


class EventSourceApi:
    """The stream of events."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._streams = streaming.streams
        self._follow = streaming.follow

    async def events(self, request: Request) -> Reply:
        """``GET /sync/sse``: the parameters of ``/sync`` and ``heartbeat_interval``, in seconds."""
        since = request.headers.get("Last-Event-ID") or request.query.get("since")
        asked = await self._streaming.read(request, since)
        heartbeat = request.query_int(
            "heartbeat_interval",
            self._streams.settings.event_source_heartbeat,
            minimum=1,
            maximum=_MAX_HEARTBEAT_S,
        )
        response = web.StreamResponse(headers={**request.cors_headers, **_HEADERS})
        if request.method == "HEAD":
            return response
        with self._streams.open(EVENT_SOURCE, request.requester) as stream:
            try:
                await self._serve(request, response, asked, heartbeat, stream)
            except _TooSlow:
                stream.reason = "reads too slowly"
                if request.http.transport is not None:
                    request.http.transport.abort()
            except ConnectionError:
                stream.reason = "closed by the client"
        return response

    async def _serve(
        self,
        request: Request,
        response: web.StreamResponse,
        asked: SyncRequest,
        heartbeat: int,
        stream: LiveStream,
    ) -> None:
        """The stream from its head to its end; a newer one may end it wherever it is."""
        write = await self._begin(request, response)
        try:
            async with asyncio.timeout(None) as until_replaced:
                stream.ends_by(partial(until_replaced.reschedule, 0))
                await self._tell(request, asked, heartbeat, stream, write)
                stream.ends_by(None)  # it ends by itself
        except TimeoutError:
            stream.reason = "replaced"
            if request.http.protocol.writing_paused:
                raise _TooSlow from None
            # Browsers come back all the same, and would take the place of the next one at once.
            await write(
                b"retry: %d\n\n" % _RETRY_REPLACED_MS + error_event(limit_exceeded(_RETRY_REPLACED_MS))
            )
        await response.write_eof()

    async def _begin(self, request: Request, response: web.StreamResponse) -> _Write:
        """Send the head, and say how to write the rest: what has been written has been taken."""
        notice_silence(request.http.transport)
        timeout = self._streams.settings.write_timeout
        writer = await response.prepare(request.http)

        async def write(piece: bytes) -> None:
            try:
                async with asyncio.timeout(patience_for(len(piece), timeout)):
                    await response.write(piece)
                    if writer is not None:
                        await writer.drain()
            except TimeoutError:
                raise _TooSlow from None

        return write

    async def _tell(
        self, request: Request, asked: SyncRequest, heartbeat: int, stream: LiveStream, write: _Write
    ) -> None:
        """All there is to tell.  Ends where an event ends; after an error with one that says so."""
        try:
            await write(b"retry: %d\n\n" % _RETRY_MS)
            responses = self._follow.responses(asked, pause=heartbeat, lifetime=stream.lifetime)
            async with aclosing(responses):
                async for response in responses:
                    await request.check_caller()
                    await write(HEARTBEAT if response is None else sync_event(response))
            stream.reason = "server stops" if self._follow.closing else "lifetime is over"
        except (ConnectionError, _TooSlow):
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                log.error("live stream failed", exc_info=error)
                refusal = internal_error()
            stream.reason = refusal.errcode
            await write(error_event(refusal))


def sync_event(response: dict[str, Any]) -> bytes:
    """A response of ``/sync`` as an event.  JSON as it is written here has no line breaks."""
    return b"event: sync\nid: %b\ndata: %b\n\n" % (response["next_batch"].encode(), orjson.dumps(response))


def error_event(refusal: MatrixError) -> bytes:
    """The last word to a client that may not go on.  It has no id: the one before stays the last."""
    return b"event: error\ndata: %b\n\n" % orjson.dumps(refusal.body())
