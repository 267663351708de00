"""Asking strangers' servers for pages and images, within the bounds that the configuration sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import structlog

from homeserver.config.previews import UrlPreviews as Settings
from homeserver.errors import RemoteError
from homeserver.previews.rules import UrlRules
from homeserver.previews.web import Web, WebPage

_log = structlog.get_logger()

HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
TEXT_TYPE: Final = "text/plain"
_UNKNOWN_TYPES: Final = ("application/octet-stream", "binary/octet-stream")
#: More languages than anybody reads.
_MAX_LANGUAGES: Final = 10
_ACCEPT_PAGE: Final = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.8"
_ACCEPT_IMAGE: Final = "image/png,image/jpeg,image/webp,image/gif,image/*;q=0.5"
_ACCEPT_OEMBED: Final = "application/json,text/xml;q=0.9"
#: Oembed answers and plain text are short, in bytes.
_MAX_SMALL: Final = 262_144


class NothingThere(Exception):
    """A page that was not to be had."""


class Fetching:
    """Fetches; each method raises ``NothingThere`` for whatever reason there is."""

    def __init__(self, web: Web, settings: Settings) -> None:
        self._web = web
        self._settings = settings
        self._rules = UrlRules(settings.denied_urls, settings.ports)
        #: What servers are told of the languages that are liked.
        self.language = ", ".join(settings.accept_language[:_MAX_LANGUAGES])

    def permits(self, url: str) -> bool:
        """Whether previews are made of an address, going by its host, port and path."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return self._rules.permits(parts.hostname or "", port, parts.path or "/")

    async def page(self, url: str) -> WebPage:
        """A page of HTML or text, or its beginning; an image; of other types only what the head says."""
        return await self._get(url, _ACCEPT_PAGE, self._bytes_of_page)

    async def image(self, url: str) -> bytes:
        """The bytes of an image, or of what says it is one; whole."""
        page = await self._get(url, _ACCEPT_IMAGE, self._bytes_of_image)
        if not page.is_whole:
            raise NothingThere
        return page.body

    async def oembed(self, url: str) -> WebPage:
        """An oEmbed answer; whole."""
        page = await self._get(url, _ACCEPT_OEMBED, lambda _: _MAX_SMALL)
        if not page.is_whole:
            raise NothingThere
        return page

    async def _get(self, url: str, accept: str, max_bytes: Callable[[str], int]) -> WebPage:
        headers = {"Accept": accept, "Accept-Language": self.language or "*"}
        try:
            page = await self._web.get_page(
                url,
                headers=headers,
                timeout=self._settings.timeout,
                max_bytes=max_bytes,
                permits=self._rules.permits,
            )
        except RemoteError as error:
            _log.debug("no page to preview", server=error.server_name, reason=error.message)
            raise NothingThere from error
        if not 200 <= page.status < 300:
            raise NothingThere
        return page

    def _bytes_of_page(self, content_type: str) -> int:
        if content_type in HTML_TYPES:
            return self._settings.max_bytes
        if content_type == TEXT_TYPE:
            return _MAX_SMALL
        return self._bytes_of_image(content_type) if content_type.startswith("image/") else 0

    def _bytes_of_image(self, content_type: str) -> int:
        # Many servers do not know the types of their images, but pages and films are never meant.
        if content_type.startswith("image/") or content_type in _UNKNOWN_TYPES:
            return self._settings.max_image_bytes
        return 0
