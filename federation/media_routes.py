"""Media of this server for others (server-server API, "Content repository").

Only what was uploaded here: nobody fetches a third server's media through this one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from homeserver.media.asking import wait_ms, wanted_thumbnail
from homeserver.media.content import Content
from homeserver.media.headers import content_disposition
from homeserver.media.mxc import Mxc
from homeserver.media.repository import Media
from homeserver.media.thumbnails import Thumbnails
from homeserver.replies import Reply, Stream
from homeserver.web import Request


class MediaRoutes:
    """Endpoints that give media to other servers."""

    def __init__(self, *, media: Media, thumbnails: Thumbnails, server_name: str) -> None:
        self._media = media
        self._thumbnails = thumbnails
        self._server_name = server_name

    async def download(self, request: Request) -> Reply:
        """``GET /media/download/{mediaId}``."""
        return _multipart(await self._find(request))

    async def thumbnail(self, request: Request) -> Reply:
        """``GET /media/thumbnail/{mediaId}``."""
        wanted = wanted_thumbnail(request)
        return _multipart(await self._thumbnails.find(await self._find(request), wanted))

    async def _find(self, request: Request) -> Content:
        mxc = Mxc.parse(self._server_name, request.params["mediaId"])
        return await self._media.find(mxc, to_anybody=False, may_fetch=False, wait_ms=wait_ms(request))


def _multipart(content: Content) -> Stream:
    """Two parts: metadata, of which there is none, and the content."""
    boundary = secrets.token_hex(16)
    disposition = content_disposition(content.content_type, content.filename)
    before = (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
        f"--{boundary}\r\nContent-Type: {content.content_type}\r\n"
        f"Content-Disposition: {disposition}\r\n\r\n"
    ).encode()
    after = f"\r\n--{boundary}--\r\n".encode()

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(content.read()) as read:
            first = await anext(read, b"")
            yield before + first
            async for piece in read:
                yield piece
        yield after

    length = len(before) + content.size + len(after)
    return Stream(pieces(), length, {"Content-Type": f"multipart/mixed; boundary={boundary}"})
