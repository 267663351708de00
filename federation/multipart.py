"""Multipart bodies, read as they come (RFC 2046, 5.1).

A parser without I/O: it is fed bytes, cut anywhere, and gives back what they mean.  What
it holds is bounded, whatever it is fed; how much content there may be is its user's affair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, TypeAlias

import msgspec

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_PREAMBLE_BYTES: Final = 64 * 1024
#: Two hyphens close the body; so many spaces may stand before the end of a boundary's line.
_AFTER_BOUNDARY: Final = rb"(?:(?P<close>--)|(?P<next>[ \t]{0,128}\r\n)|(?:-|[ \t]{0,128}\r?)\Z)"


class MalformedMultipart(Exception):
    """The other server sent what is no multipart body, or a part of one."""


class PartHead(msgspec.Struct, frozen=True):
    """A part begins; names of headers are in lower case."""

    headers: Mapping[str, str]


Piece: TypeAlias = "PartHead | bytes"


class _At(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    CONTENT = auto()
    END = auto()


class MultipartParser:
    """Takes a body apart at ``boundary``."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        #: A delimiter that is one, or that may become one with the bytes to come: found by one search, for
        #: content may consist of what only begins like them.
        self._ending = re.compile(re.escape(self._delimiter) + _AFTER_BOUNDARY)
        # The line break belongs to the delimiter; the first one may do without.
        self._buffer = b"\r\n"
        self._at = _At.PREAMBLE
        self._preamble = 0
        #: Bytes at the buffer's beginning that were kept for the delimiter's sake, and are no content.
        self._borrowed = 0

    @property
    def at_end(self) -> bool:
        """Whether the closing delimiter has come; whatever follows it means nothing."""
        return self._at is _At.END

    def feed(self, data: bytes) -> list[Piece]:
        """The heads and pieces of content in what has come so far.  Raises ``MalformedMultipart``."""
        self._buffer += data
        pieces: list[Piece] = []
        while self._go_on(pieces):
            pass
        return pieces

    def finish(self) -> None:
        """Nothing more comes; ``MalformedMultipart`` if there should have."""
        if not self.at_end:
            raise MalformedMultipart("The body ends before its last delimiter")

    def _go_on(self, pieces: list[Piece]) -> bool:
        """Take the next thing from the buffer; false when that needs more bytes."""
        if self._at is _At.END:
            return False
        return self._take_head(pieces) if self._at is _At.HEADERS else self._take_content(pieces)

    def _take_head(self, pieces: list[Piece]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEADER_BYTES:
            raise MalformedMultipart("The headers of a part are too long")
        if end < 0:
            return False
        pieces.append(PartHead(_headers(self._buffer[:end])))
        # The second line break stays, for content may be empty, and the delimiter begin with it.
        self._buffer = self._buffer[end + 2 :]
        self._borrowed = 2
        self._at = _At.CONTENT
        return True

    def _take_content(self, pieces: list[Piece]) -> bool:
        found = self._ending.search(self._buffer)
        if found is None:
            # What is at the end may become a delimiter.
            self._pass_on(len(self._buffer) - len(self._delimiter) + 1, pieces)
            return False
        self._pass_on(found.start(), pieces)
        if found["close"] is not None:
            self._buffer = b""
            self._at = _At.END
        elif found["next"] is not None:
            # The line break stays: it may begin the empty line that ends the headers.
            self._buffer = self._buffer[found.end() - found.start() - 2 :]
            self._at = _At.HEADERS
            return True
        return False

    def _pass_on(self, length: int, pieces: list[Piece]) -> None:
        """Take content, or what stands before the first part, from the buffer."""
        content, self._buffer = self._buffer[: max(length, 0)], self._buffer[max(length, 0) :]
        if self._at is _At.PREAMBLE:
            self._preamble += len(content)
            if self._preamble > MAX_PREAMBLE_BYTES:
                raise MalformedMultipart("There is too much before the first part")
            return
        borrowed = min(self._borrowed, len(content))
        self._borrowed -= borrowed
        if len(content) > borrowed:
            pieces.append(content[borrowed:])


def _headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if line and not (colon and name and name.strip() == name):
            raise MalformedMultipart("A header of a part is malformed")
        if line:
            headers[name.decode("latin-1").lower()] = value.strip(b" \t").decode("utf-8", "replace")
    return headers
