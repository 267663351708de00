"""Content that can be read: which file, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from homeserver.errors import not_found
from homeserver.media.files import Files


class Content(msgspec.Struct, frozen=True):
    """The content of some media, or a thumbnail of it.

    ``is_public`` is whether the deprecated endpoints give it to anybody, ``is_remote``
    whether it came from another server.
    """

    files: Files
    file_id: str
    size: int
    content_type: str
    filename: str | None
    is_public: bool
    is_remote: bool

    @property
    def etag(self) -> str:
        """A validator for caches: a file never changes."""
        return f'"{self.file_id}"'

    async def read(self, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes, or a part of them, in pieces; ``M_NOT_FOUND`` when they have been given up since."""
        length = self.size - start if length is None else length
        try:
            async with aclosing(self.files.read(self.file_id, start, length)) as pieces:
                async for piece in pieces:
                    yield piece
        except FileNotFoundError:
            raise not_found("There is no such media any more") from None
