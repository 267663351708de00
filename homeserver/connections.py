"""Connections that ask for nothing are closed, and bodies are not unpacked.

aiohttp waits for a connection's first request for ever, and an hour for the next one; a peer could
hold as many open as it likes.  It also unpacks bodies that come compressed, which nothing in the
specification asks for: a megabyte could become a gigabyte.  What a request may take once its head is
here is for ``web.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from homeserver import aiohttp_web as web

#: For the whole head of a connection's first request, in seconds.
HEAD_SECONDS: Final = 30.0
#: For that of each further one; longer than reverse proxies keep theirs open.
KEEP_ALIVE_SECONDS: Final = 300.0
#: For a caller to notice that it has its answer, and that its body was not wanted.
_LINGER_SECONDS: Final = 3.0


class Connections(web.Server):
    """``aiohttp.web.Server`` with bounds on the time before a request."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        head_seconds: float = HEAD_SECONDS,
        **options: Any,
    ) -> None:
        super().__init__(
            handler,
            request_factory=self._asked,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,
            **options,
        )
        self._head_seconds = head_seconds
        #: Those that have not asked for anything yet.
        self._silent: set[web.RequestHandler] = set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """aiohttp has accepted a connection, its TLS handshake included."""
        super().connection_made(handler, transport)
        self._silent.add(handler)
        asyncio.get_running_loop().call_later(self._head_seconds, self._close_if_silent, handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """aiohttp has lost a connection."""
        self._silent.discard(handler)
        super().connection_lost(handler, exc)

    def _asked(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """aiohttp has read the head of a request."""
        self._silent.discard(protocol)
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)

    def _close_if_silent(self, handler: web.RequestHandler) -> None:
        if handler in self._silent:
            handler.force_close()
