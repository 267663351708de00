"""One WebSocket from its handshake to its end: news down, requests up, signs of life both ways.

Whatever happens becomes an ``Ending`` with its close code.  One frame is being written at a time, and
the next news are collected when it has been taken; a client that reads too slowly is let go, and comes
back with its token.  So many requests are answered at once; more are not read until one is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import msgspec
import orjson
import structlog
from aiohttp.http import WSMsgType

from client_api.live.patience import patience_for
from client_api.live.upstream import Call, Misunderstood, read_call
from homeserver import aiohttp_web as web
from homeserver.config.live import Live
from homeserver.errors import MatrixError
from homeserver.refusals import internal_error, refusal_of
from homeserver.replies import Json
from homeserver.web import Request

log = structlog.get_logger(__name__)

#: Requests of one connection that are answered at once.
MAX_IN_FLIGHT: Final = 16
#: Seconds that those get to finish when the connection ends.
_FINISHING_S = 10.0
#: Seconds until a connection is cut whose client does not read the last that was written.
_LINGER_S = 10.0


class Ending(msgspec.Struct, frozen=True):
    """Why a conversation ends: the code and the words of the close frame, and the error if there is one."""

    code: int
    reason: str
    refusal: MatrixError | None = None


SERVER_STOPS: Final = Ending(1001, "server stops")
BY_CLIENT: Final = Ending(1000, "closed by the client")
NOT_TEXT: Final = Ending(1003, "messages are text")
LIFETIME_OVER: Final = Ending(4000, "lifetime is over")
TOO_SLOW: Final = Ending(4408, "reads too slowly")
REPLACED: Final = Ending(4429, "replaced by a newer stream")
SILENT: Final = Ending(4409, "does not answer pings")


def ending_for(error: Exception) -> Ending:
    """The end that an error brings; a bug of ours is logged."""
    refusal = refusal_of(error)
    if refusal is None:
        log.error("live stream failed", exc_info=error)
        return Ending(1011, "internal error", internal_error())
    return Ending(4000 + refusal.status if refusal.status in {401, 403} else 1011, refusal.errcode, refusal)


class Conversation:
    """Tells, listens and answers until one of these ends."""

    def __init__(self, request: Request, socket: web.WebSocketResponse, settings: Live) -> None:
        self._request = request
        self._socket = socket
        self._settings = settings
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._writing = asyncio.Lock()
        #: A frame was not taken in time: nothing can be written any more but the close frame.
        self._stuck = False
        self._free = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._answering: set[asyncio.Task[None]] = set()
        #: The last request of each lane.
        self._lanes: dict[str, asyncio.Task[None]] = {}

    async def run(
        self, responses: AsyncGenerator[dict[str, Any] | None, None], is_closing: Callable[[], bool]
    ) -> Ending:
        """Go on until the end, and close the connection."""
        tasks = [
            asyncio.create_task(self._guarded(self._tell(responses, is_closing))),
            asyncio.create_task(self._guarded(self._listen())),
        ]
        try:
            ending = await self._ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for answer in self._answering:
                # Whoever asked over HTTP has their request finished too, also if they are gone.
                asyncio.get_running_loop().call_later(_FINISHING_S, answer.cancel)
        if self._answering:
            await asyncio.wait(self._answering)
        await self._close(ending)
        return ending

    async def _guarded(self, work: Awaitable[Ending]) -> None:
        try:
            ending = await work
        except ConnectionError:
            ending = BY_CLIENT
        except Exception as error:
            ending = ending_for(error)
        self.end(ending)

    def end(self, ending: Ending) -> None:
        """Let it end so, unless it ends already."""
        if not self._ended.done():
            self._ended.set_result(ending)

    async def _tell(
        self, responses: AsyncGenerator[dict[str, Any] | None, None], is_closing: Callable[[], bool]
    ) -> Ending:
        async with aclosing(responses):
            async for response in responses:
                await self._request.check_caller()
                if response is not None:
                    await self._write(orjson.dumps(response))
        return SERVER_STOPS if is_closing() else LIFETIME_OVER

    async def _listen(self) -> Ending:
        """Take what comes.  One ping goes unanswered: the second silence is the last."""
        is_asked = False
        while True:
            try:
                message = await self._socket.receive(timeout=self._settings.web_socket_heartbeat)
            except TimeoutError:
                if is_asked:
                    return SILENT
                is_asked = True
                await self._write(b"", WSMsgType.PING)
                continue
            is_asked = False
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            elif message.type is WSMsgType.BINARY:
                return NOT_TEXT
            elif message.type is WSMsgType.PING:
                await self._write(message.data, WSMsgType.PONG)
            elif message.type is WSMsgType.ERROR:
                return Ending(self._socket.close_code or 1002, "broken frames")
            elif message.type is not WSMsgType.PONG:
                return BY_CLIENT

    async def _take(self, text: str) -> None:
        """Begin to answer a request, once there is room for it."""
        try:
            call = read_call(text, self._request.requester.user_id)
        except Misunderstood as error:
            await self._write(orjson.dumps({"id": error.call_id, "error": error.refusal.body()}))
            return
        await self._free.acquire()
        before = self._lanes.get(call.lane) if call.lane is not None else None
        task = asyncio.create_task(self._answer(call, before))
        self._answering.add(task)
        if call.lane is not None:
            self._lanes[call.lane] = task
        task.add_done_callback(lambda done: self._answered(call, done))

    def _answered(self, call: Call, task: asyncio.Task[None]) -> None:
        self._free.release()
        self._answering.discard(task)
        if call.lane is not None and self._lanes.get(call.lane) is task:
            del self._lanes[call.lane]

    async def _answer(self, call: Call, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            answer = {"id": call.id, "result": await self._result(call)}
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                log.error("request failed", method=call.method, path=call.path, exc_info=error)
                refusal = internal_error()
            answer = {"id": call.id, "error": refusal.body()}
        with contextlib.suppress(ConnectionError):
            await self._write(orjson.dumps(answer))

    async def _result(self, call: Call) -> object:
        if call.path is None:
            return {}
        reply = await self._request.ask(call.method, call.path, call.body)
        return orjson.Fragment(reply.body) if isinstance(reply, Json) else reply

    async def _write(self, data: bytes, kind: WSMsgType = WSMsgType.TEXT) -> None:
        """Write a frame, and wait until it has been taken.  Raises ``ConnectionError``."""
        async with self._writing:
            if self._stuck:
                raise ConnectionResetError(TOO_SLOW.reason)
            try:
                async with asyncio.timeout(patience_for(len(data), self._settings.write_timeout)):
                    await self._socket.send_frame(data, kind)
            except TimeoutError:
                self._stuck = True
                self.end(TOO_SLOW)
                raise ConnectionResetError(TOO_SLOW.reason) from None

    async def _close(self, ending: Ending) -> None:
        """Say the last word, and close the connection within a bounded time."""
        transport = self._request.http.transport
        if transport is None or self._socket.closed:
            return
        if self._stuck or self._request.http.protocol.writing_paused:
            # What waits for the client comes first; whoever reads on finds the close frame behind it.
            transport.write(close_frame(ending))
            transport.close()
            asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)
            return
        if ending.refusal is not None:
            with contextlib.suppress(ConnectionError):
                await self._write(orjson.dumps({"error": ending.refusal.body()}))
        await self._socket.close(code=ending.code, message=ending.reason.encode())


def close_frame(ending: Ending) -> bytes:
    """A close frame as a server sends it (RFC 6455, section 5.5.1)."""
    payload = ending.code.to_bytes(2, "big") + ending.reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload
