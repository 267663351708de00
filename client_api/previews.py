"""Previews of links (client-server API, ``GET /media/preview_url``)."""

from __future__ import annotations

from homeserver.errors import MatrixError
from homeserver.previews.url_previews import UrlPreviews
from homeserver.replies import Json, Reply
from homeserver.web import Request


class PreviewsApi:
    """The endpoint; without ``previews``, which are then switched off, it is not there."""

    def __init__(self, previews: UrlPreviews | None) -> None:
        self._previews = previews

    async def preview(self, request: Request) -> Reply:
        """``GET /media/preview_url``."""
        if self._previews is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "This server makes no previews of links")
        url = request.query_text("url")
        ts = request.query_int("ts", 0) if "ts" in request.query else None
        return Json(await self._previews.preview(request.requester.user_id, url, ts))
