"""Previews of addresses that people write of (client-server API, ``GET /media/preview_url``).

What was found is kept for a while, and so is that nothing was.  Nobody learns from an answer
what went wrong: it could tell what there is in the network that this server stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden, invalid_param
from homeserver.lookups import InFlight
from homeserver.previews.fetching import HTML_TYPES, TEXT_TYPE, Fetching, NothingThere
from homeserver.previews.found import Found, Job, described_file
from homeserver.previews.preview_images import PreviewImages
from homeserver.previews.texts import name_in, web_address
from homeserver.previews.turns import Turns
from homeserver.previews.web import WebPage
from homeserver.previews.workers import Unreadable, Workers
from homeserver.storage import previews as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.previews import Image, Preview

#: How long it counts that there was nothing: whoever mends a page wants to see it.
_FAILURE_MS: Final = 10 * 60 * 1000
#: How long a preview is kept after it stopped being new.  Clients ask for what a page was when a message was
#: sent, and their own caches name its image: after a month few look at either any more.
KEPT_MS: Final = 30 * 24 * 3600 * 1000
_MAX_KEPT: Final = 200_000


class UrlPreviews:
    """Makes previews, and keeps them; one counts as new for ``fresh_ms``."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        server_name: str,
        fetching: Fetching,
        workers: Workers,
        images: PreviewImages,
        turns: Turns,
        fresh_ms: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._fetching = fetching
        self._workers = workers
        self._images = images
        self._turns = turns
        self._fresh_ms = fresh_ms
        self._asked: InFlight[tuple[str, str], Preview] = InFlight()
        self._fetches: InFlight[str, Preview] = InFlight()

    async def preview(self, user_id: str, url: str, ts: int | None) -> bytes:
        """What is at ``url``, as JSON; at the time ``ts`` in ms if that is known, else later.

        ``M_INVALID_PARAM`` for what is no address of the web, ``M_FORBIDDEN`` for one that the
        configuration denies, ``M_LIMIT_EXCEEDED`` for who asks too much at once, and 502
        ``M_UNKNOWN`` when there was no page.
        """
        address = web_address(url, "")
        if address is None:
            raise invalid_param("Only of http and https addresses there are previews")
        if not self._fetching.permits(address):
            raise forbidden("This server makes no previews of this address")
        now = self._clock.now_ms()
        found = await self._kept(address, now if ts is None else min(ts, now))
        if found is None:
            asked = partial(self._in_turn, user_id, address)
            found = await self._asked.run((user_id, address), asked)
        if found.preview is None:
            raise MatrixError(502, "M_UNKNOWN", "There is no page there that could be looked at")
        return found.preview.encode()

    async def forget_old(self) -> None:
        """Forget what is over, and delete images with it."""
        now = self._clock.now_ms()

        async def remove(tx: Transaction) -> None:
            await storage.remove_old(tx, failed_before=now, expired_before=now - KEPT_MS)
            await storage.remove_beyond(tx, _MAX_KEPT)

        await self._db.write(remove)
        await self._images.forget_unused()

    async def close(self) -> None:
        """Stop looking at pages."""
        await self._asked.close()
        await self._fetches.close()
        await self._images.close()

    async def _kept(self, url: str, ts: int) -> Preview | None:
        """What was new at a time, or else what was found next."""
        now, language = self._clock.now_ms(), self._fetching.language
        before = await storage.last_before(self._db.read, url, language, ts, now)
        if before is not None and ts < before.expires_at:
            return before
        return await storage.first_after(self._db.read, url, language, ts, now)

    async def _in_turn(self, user_id: str, url: str) -> Preview:
        async with self._turns.turn(user_id):
            # Meanwhile somebody else's turn may have brought it.
            found = await self._kept(url, self._clock.now_ms())
            return found or await self._fetches.run(url, lambda: self._fetch(url))

    async def _fetch(self, url: str) -> Preview:
        told: str | None = None
        image: Image | None = None
        lasts = _FAILURE_MS
        try:
            page = await self._fetching.page(url)
            found, image = await self._look_at(page)
            told = _json({**found.told(), **self._about(image)})
            lasts = self._fresh_ms
        except (NothingThere, Unreadable):
            pass
        now = self._clock.now_ms()
        media_id = image.media_id if image else None
        row = Preview(url, self._fetching.language, now, now + lasts, told, media_id)
        await self._db.write(lambda tx: storage.put(tx, row))
        return row

    async def _look_at(self, page: WebPage) -> tuple[Found, Image | None]:
        if page.content_type in HTML_TYPES:
            found = await self._workers.describe(page.body, Job("html", page.charset, page.url))
            found = await self._with_oembed(found)
            return found, await self._images.first(found.images)
        if page.content_type == TEXT_TYPE:
            return await self._workers.describe(page.body, Job("text", page.charset, page.url)), None
        if page.content_type.startswith("image/"):
            image = await self._images.keep(page.url, page.body) if page.is_whole else None
            name = name_in(page.url)
            return Found({"og:title": name} if image and name else {}), image
        return described_file(page.content_type, page.url), None

    async def _with_oembed(self, found: Found) -> Found:
        if found.oembed is None:
            return found
        kind, url = found.oembed
        try:
            page = await self._fetching.oembed(url)
            job = Job("oembed-xml" if kind == "xml" else "oembed-json", page.charset, page.url)
            return found.completed(await self._workers.describe(page.body, job))
        except (NothingThere, Unreadable):
            return found

    def _about(self, image: Image | None) -> Mapping[str, str | int]:
        if image is None:
            return {}
        return {
            "og:image": f"mxc://{self._server_name}/{image.media_id}",
            "og:image:type": image.content_type,
            "og:image:width": image.width,
            "og:image:height": image.height,
            "matrix:image:size": image.size,
        }


def _json(values: Mapping[str, str | int]) -> str:
    return msgspec.json.encode(values).decode()
