"""Media (client-server API, "Content repository"): uploads, downloads, thumbnails.

The deprecated endpoints need no access token.  Who shows one there gets what the new
endpoints give; everybody else only what was made public when it came here.
"""

from __future__ import annotations

from typing import Final

from homeserver.errors import MatrixError
from homeserver.media.asking import wait_ms, wanted_thumbnail
from homeserver.media.content import Content
from homeserver.media.headers import (
    SECURITY_HEADERS,
    content_disposition,
    content_type,
    upload_filename,
)
from homeserver.media.mxc import Mxc
from homeserver.media.ranges import part_asked_for
from homeserver.media.repository import Media
from homeserver.media.thumbnails import Thumbnails
from homeserver.media.uploads import Description, Uploads
from homeserver.replies import Reply, Stream
from homeserver.web import Request

#: Content never changes, but who may have it is decided for each request.
_CACHE_CONTROL: Final = "private, max-age=31536000, immutable"


class MediaApi:
    """Endpoints for media."""

    def __init__(
        self, *, uploads: Uploads, media: Media, thumbnails: Thumbnails, max_upload_bytes: int
    ) -> None:
        self._uploads = uploads
        self._media = media
        self._thumbnails = thumbnails
        self._max_upload_bytes = max_upload_bytes

    @property
    def max_upload_bytes(self) -> int:
        """The largest file that is taken."""
        return self._max_upload_bytes

    async def config(self, request: Request) -> Reply:
        """``GET /media/config``."""
        return {"m.upload.size": self._max_upload_bytes}

    async def upload(self, request: Request) -> Reply:
        """``POST /upload``."""
        mxc = await self._uploads.upload(
            request.requester.user_id, request.chunks(), self._description(request)
        )
        return {"content_uri": str(mxc)}

    async def create(self, request: Request) -> Reply:
        """``POST /create``."""
        mxc, expires_at = await self._uploads.create(request.requester.user_id)
        return {"content_uri": str(mxc), "unused_expires_at": expires_at}

    async def upload_to(self, request: Request) -> Reply:
        """``PUT /upload/{serverName}/{mediaId}``."""
        await self._uploads.upload_to(
            request.requester.user_id, _mxc(request), request.chunks(), self._description(request)
        )
        return {}

    async def download(self, request: Request) -> Reply:
        """``GET /media/download/{serverName}/{mediaId}``, perhaps with ``/{fileName}``."""
        content = await self._find(request)
        filename = request.params.get("fileName") or content.filename
        return _reply(request, content, content_disposition(content.content_type, filename))

    async def thumbnail(self, request: Request) -> Reply:
        """``GET /media/thumbnail/{serverName}/{mediaId}``."""
        wanted = wanted_thumbnail(request)
        thumbnail = await self._thumbnails.find(await self._find(request), wanted)
        return _reply(request, thumbnail, content_disposition(thumbnail.content_type, thumbnail.filename))

    async def _find(self, request: Request) -> Content:
        return await self._media.find(
            _mxc(request),
            to_anybody=request.requester_if_any is None,
            may_fetch=request.query_bool("allow_remote", True),
            wait_ms=wait_ms(request),
        )

    def _description(self, request: Request) -> Description:
        size = request.http.content_length
        if size is not None and size > self._max_upload_bytes:
            raise MatrixError(413, "M_TOO_LARGE", f"Files may have {self._max_upload_bytes} bytes at most")
        return Description(
            content_type=content_type(request.headers.get("Content-Type")),
            filename=upload_filename(request.query.get("filename")),
            size=size,
        )


def _mxc(request: Request) -> Mxc:
    return Mxc.parse(request.params["serverName"], request.params["mediaId"])


def _reply(request: Request, content: Content, disposition: str) -> Stream:
    part = part_asked_for(request.headers, content.etag, content.size)
    headers = {
        **SECURITY_HEADERS,
        "Content-Type": content.content_type,
        "Content-Disposition": disposition,
        "Cache-Control": _CACHE_CONTROL,
        "ETag": content.etag,
        "Accept-Ranges": "bytes",
    }
    if part.status == 206:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{content.size}"
    elif part.status == 416:
        headers["Content-Range"] = f"bytes */{content.size}"
    return Stream(content.read(part.start, part.length), part.length, headers, part.status)
