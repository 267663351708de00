"""The images of previews: fetched, looked at, and kept as media of this server that is no user's.

An image is kept as long as a preview has it, so that what a client was told last month can
still be looked at, and counts towards nobody's quota.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

from homeserver.clock import Clock
from homeserver.lookups import InFlight
from homeserver.media.files import Files
from homeserver.media.mxc import new_media_id
from homeserver.previews.fetching import Fetching, NothingThere
from homeserver.previews.workers import Unreadable, Workers
from homeserver.storage import media as media_storage
from homeserver.storage import previews as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.media import LocalMedia
from homeserver.storage.previews import Image

#: Whose media it is: nobody's.
_NOBODY: Final = ""
#: How long an image that was just given to a preview waits for it to be stored, in ms.
_YOUNG_MS: Final = 3600 * 1000
_BATCH: Final = 200
#: It is looked how much there is when this share of the bound has come since the last time.
_SHARE: Final = 0.1


class PreviewImages:
    """Keeps images.

    An image found at an address within ``fresh_ms`` is not fetched again; ``max_bytes`` bounds all
    together, ``max_pixels`` each.  ``public`` is whether the deprecated endpoints give them to
    anybody, and ``dropped`` is told of files that are gone.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        files: Files,
        fetching: Fetching,
        workers: Workers,
        fresh_ms: int,
        max_bytes: int,
        max_pixels: int,
        public: bool,
        dropped: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        self._db = db
        self._clock = clock
        self._files = files
        self._fetching = fetching
        self._workers = workers
        self._fresh_ms = fresh_ms
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._public = public
        self._dropped = dropped
        self._in_flight: InFlight[str, Image | None] = InFlight()
        self._trimming = asyncio.Lock()
        #: Bytes stored since it was last looked how much there is.
        self._added = 0

    async def first(self, urls: Collection[str]) -> Image | None:
        """The first of the addresses at which there is an image."""
        for url in urls:
            if (image := await self._in_flight.run(url, partial(self._at, url))) is not None:
                return image
        return None

    async def keep(self, url: str, data: bytes) -> Image | None:
        """Store an image that was found at an address; ``None`` for what is none, or too large."""
        try:
            kind = await self._workers.identify(data)
        except Unreadable:
            return None
        if kind is None or not 0 < kind.width * kind.height <= self._max_pixels:
            return None
        async with self._files.create() as file:
            await file.write(data)
            await file.keep()
        image = Image(
            media_id=new_media_id(),
            file_id=file.file_id,
            url=url,
            size=file.size,
            content_type=kind.content_type,
            width=kind.width,
            height=kind.height,
            fetched_at=self._clock.now_ms(),
        )
        media = LocalMedia(
            media_id=image.media_id,
            user_id=_NOBODY,
            created_at=image.fetched_at,
            file_id=image.file_id,
            size=image.size,
            content_type=image.content_type,
            is_public=self._public,
        )

        async def store(tx: Transaction) -> None:
            await media_storage.add_local(tx, media)
            await storage.put_image(tx, image)

        await self._db.write(store)
        self._added += image.size
        if self._added > self._max_bytes * _SHARE:
            await self._trim()
        return image

    async def forget_unused(self) -> None:
        """Delete the images that no preview has any more, and the oldest where there are too many."""
        # Until then it may be given to another preview at any moment.
        before = self._clock.now_ms() - self._fresh_ms - _YOUNG_MS
        while unused := await storage.unused_images(self._db.scan, before, _BATCH):
            await self._remove(unused)
        await self._trim()

    async def close(self) -> None:
        """Stop fetching."""
        await self._in_flight.close()

    async def _at(self, url: str) -> Image | None:
        since = self._clock.now_ms() - self._fresh_ms
        if (known := await storage.image_at(self._db.read, url, since)) is not None:
            return known
        try:
            return await self.keep(url, await self._fetching.image(url))
        except NothingThere:
            return None

    async def _trim(self) -> None:
        """Delete the oldest images until the rest fits."""
        async with self._trimming:
            self._added = 0
            surplus = await storage.image_bytes(self._db.scan) - self._max_bytes
            while surplus > 0 and (oldest := await storage.oldest_images(self._db.scan, _BATCH)):
                leaving = []
                for image in oldest:
                    if surplus > 0:
                        leaving.append(image)
                        surplus -= image.size
                await self._remove(leaving)

    async def _remove(self, images: Collection[Image]) -> None:
        await self._db.write(lambda tx: storage.remove_images(tx, [image.media_id for image in images]))
        file_ids = [image.file_id for image in images]
        await self._dropped(file_ids)
        await self._files.remove(file_ids)
