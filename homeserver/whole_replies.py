"""Replies that leave in one piece: status line, headers and body, put together from ready-made bytes.

Nearly every reply is JSON with the same few headers.  aiohttp builds a dictionary of them, completes and
writes it out for each reply, which costs more than everything else that an answer needs; here they are bytes
that are made once.  Only for what needs nothing else: HTTP/1.1 on a connection that stays open, and a status
that comes with a body.  All others are aiohttp's, with the same headers (``replies.py``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from homeserver import aiohttp_web as web

#: Bodies up to here are copied behind their headers; beyond, a second write is cheaper.
_COPIED = 64 * 1024
#: Heads that are remembered; only the seconds of ``Retry-After`` make them more than a handful.
_HEADS = 128
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand on the wire.  ``ValueError`` for what would be more than a header."""
    for text in (*headers, *headers.values()):
        if not text.isprintable() or not text.isascii():
            raise ValueError(f"{text!r} cannot be part of a header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def fits_whole_reply(http: web.BaseRequest, status: int) -> bool:
    """Whether a request can be answered with a ``WholeReply`` of that status."""
    return http.keep_alive and http.version == HttpVersion11 and status not in _WITHOUT_BODY


class WholeReply(web.StreamResponse):
    """A response with a ``body`` and header ``lines`` (of ``header_lines``); the rest is added."""

    def __init__(self, status: int, lines: tuple[bytes, ...], body: bytes) -> None:
        super().__init__(status=status)
        self._lines = lines
        self._whole_body = body
        self._without_body = False
        self._writer: AbstractStreamWriter | None = None

    @property
    def keep_alive(self) -> bool:
        return True

    @property
    def prepared(self) -> bool:
        return self._writer is not None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """aiohttp says which request it is for; nothing is sent yet."""
        self._writer = request.writer
        self._without_body = request.method == "HEAD"
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send everything and wait while the client does not read; ``data`` is aiohttp's, always empty."""
        assert self._writer is not None
        # aiohttp keeps the last response of a connection for as long as that stays open.
        body, self._whole_body = self._whole_body, b""
        head = b"%b%bContent-Length: %d\r\n\r\n" % (_head(self.status, self._lines), _date.line(), len(body))
        if self._without_body:
            await self._writer.write_eof(head)
        elif len(body) <= _COPIED:
            await self._writer.write_eof(head + body)
        else:
            await self._writer.write(head)
            await self._writer.write_eof(body)


@lru_cache(_HEADS)
def _head(status: int, lines: tuple[bytes, ...]) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
    return b"HTTP/1.1 %d %b\r\nServer: %b\r\n%b" % (
        status,
        phrase.encode(),
        SERVER_SOFTWARE.encode(),
        b"".join(lines),
    )


class _Date:
    """The ``Date`` header, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._line = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
            self._second = second
        return self._line


_STATUSES: Final = frozenset(HTTPStatus)
_date: Final = _Date()
