"""Rows of the client-server API's table about media and previews of links."""

from __future__ import annotations

from client_api.media import MediaApi
from client_api.previews import PreviewsApi
from homeserver.web import Access, Route

_MAYBE = Access.USER_OR_NOBODY


def media_rows(media: MediaApi) -> list[Route]:
    """The rows of the content repository; uploads are bounded, and streamed, by their rows."""
    v1, old, limit = "/_matrix/client/v1/media", "/_matrix/media/v3", "media"
    mxc = "{serverName}/{mediaId}"
    return [
        Route("GET", f"{v1}/config", media.config),
        Route("GET", f"{v1}/download/{mxc}", media.download, limit=limit),
        Route("GET", f"{v1}/download/{mxc}/{{fileName}}", media.download, limit=limit),
        Route("GET", f"{v1}/thumbnail/{mxc}", media.thumbnail, limit=limit),
        Route(
            "POST",
            f"{old}/upload",
            media.upload,
            limit=limit,
            max_body=media.max_upload_bytes,
            streams=True,
        ),
        Route(
            "PUT",
            f"{old}/upload/{mxc}",
            media.upload_to,
            limit=limit,
            max_body=media.max_upload_bytes,
            streams=True,
        ),
        Route("POST", "/_matrix/media/v1/create", media.create, limit=limit),
        Route("GET", f"{old}/config", media.config),
        Route("GET", f"{old}/download/{mxc}", media.download, _MAYBE, limit),
        Route("GET", f"{old}/download/{mxc}/{{fileName}}", media.download, _MAYBE, limit),
        Route("GET", f"{old}/thumbnail/{mxc}", media.thumbnail, _MAYBE, limit),
    ]


def preview_rows(previews: PreviewsApi) -> list[Route]:
    """The rows of previews of links."""
    return [
        Route("GET", "/_matrix/client/v1/media/preview_url", previews.preview, limit="preview"),
        Route("GET", "/_matrix/media/v3/preview_url", previews.preview, limit="preview"),
    ]
