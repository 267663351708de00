"""Previews of links, wired."""

from __future__ import annotations

from contextlib import AsyncExitStack

from homeserver.chores import every
from homeserver.config.previews import UrlPreviews as Settings
from homeserver.content_repository import ContentRepository
from homeserver.core import Core
from homeserver.previews.fetching import Fetching
from homeserver.previews.preview_images import PreviewImages
from homeserver.previews.turns import Turns
from homeserver.previews.url_previews import UrlPreviews
from homeserver.previews.web import Web
from homeserver.previews.workers import Workers

_HOUR_S = 3600.0


def open_url_previews(
    core: Core, settings: Settings, content: ContentRepository, web: Web, closing: AsyncExitStack
) -> UrlPreviews | None:
    """Wire them over the opened content repository; ``None`` where they are switched off.

    ``web`` must refuse the addresses that strangers may not lead this server to.
    """
    if not settings.enabled:
        return None
    fetching, workers = Fetching(web, settings), Workers()
    fresh_ms = round(settings.cache_hours * _HOUR_S * 1000)
    images = PreviewImages(
        db=core.db,
        clock=core.clock,
        files=content.files["local_media"],
        fetching=fetching,
        workers=workers,
        fresh_ms=fresh_ms,
        max_bytes=settings.image_cache_bytes,
        max_pixels=content.settings.max_image_pixels,
        public=content.settings.unauthenticated_access,
        dropped=content.thumbnails.forget,
    )
    previews = UrlPreviews(
        db=core.db,
        clock=core.clock,
        server_name=core.server_name,
        fetching=fetching,
        workers=workers,
        images=images,
        turns=Turns(),
        fresh_ms=fresh_ms,
    )
    closing.push_async_callback(previews.close)
    chore = core.background.start(every(_HOUR_S, previews.forget_old), "old previews of links")
    closing.callback(chore.cancel)
    return previews
