"""Thumbnails: made once, in few sizes, and kept (client-server API, "Thumbnails").

A thumbnail is never larger than its original, and smaller than what was asked for only
where the original is.  So that nobody can have a file made for every size there is, what
is asked for is rounded up to a step.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection
from contextlib import aclosing
from typing import Final, Literal
from weakref import WeakValueDictionary

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, not_found
from homeserver.lookups import InFlight, Recent
from homeserver.media.content import Content
from homeserver.media.files import Files
from homeserver.media.image_workers import ImageJob, ImageWorkers, NotAnImage, Picture, TooCostly
from homeserver.storage import media as storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.media import Thumbnail

Method = Literal["scale", "crop"]

#: Sides of thumbnails, the recommended ones among them.
STEPS: Final = (32, 48, 64, 96, 128, 160, 240, 320, 480, 600, 640, 800, 1200, 1600, 2400, 3200)
#: Kept of one original; the oldest give way.
MAX_KEPT: Final = 32
#: An image of which none could be made is not tried again for so long, in whatever size: nobody keeps the
#: processes busy with a single one.  A busy machine may manage later.
_FAILURE_SECONDS: Final = 600.0
_REMEMBERED_FAILURES: Final = 1000

#: Status, errcode and sentence of a refusal.
Failure = tuple[int, str, str]


class Wanted(msgspec.Struct, frozen=True):
    """The kind of a thumbnail."""

    width: int
    height: int
    method: Method
    animated: bool

    @classmethod
    def nearest(cls, width: int, height: int, method: Method, animated: bool) -> Wanted:
        """The kind that is made for a request; sides are positive.

        Either side of a scaled one is rounded up; a cropped one is enlarged until its
        longer side is at a step, and keeps its shape.
        """
        if method == "scale":
            return cls(_step(width), _step(height), method, animated)
        longer = max(width, height)
        step = _step(longer)
        return cls(_upwards(width * step, longer), _upwards(height * step, longer), method, animated)


class Thumbnails:
    """Finds thumbnails, and has them made.

    ``max_bytes`` and ``max_pixels`` bound the images they are made of; ``animated`` is whether
    any of them move.
    """

    def __init__(
        self,
        *,
        db: Database,
        files: Files,
        clock: Clock,
        workers: ImageWorkers,
        max_bytes: int,
        max_pixels: int,
        animated: bool = True,
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._workers = workers
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._animated = animated
        #: By original, as long as somebody holds or waits for one.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._making: InFlight[tuple[str, Wanted], Content] = InFlight()
        self._failures: Recent[str, tuple[float, Failure]] = Recent(_REMEMBERED_FAILURES)

    async def find(self, original: Content, wanted: Wanted) -> Content:
        """A thumbnail, made if need be.

        400 ``M_UNKNOWN`` for what is no image, ``M_TOO_LARGE`` for one that is too large: 413
        for media of this server, 502 for another's.
        """
        wanted = msgspec.structs.replace(wanted, animated=wanted.animated and self._animated)
        kept = await storage.thumbnails_of(self._db.read, [original.file_id])
        for thumbnail in kept:
            # Thumbnails are not backed up, so a row may be there without its file.
            if _kind(thumbnail) == wanted and (
                thumbnail.file_id is None or await self._files.has(thumbnail.file_id)
            ):
                return self._content(original, thumbnail)
        self._check_failures(original)
        return await self._making.run(
            (original.file_id, wanted), lambda: self._make(original, wanted, kept[MAX_KEPT - 1 :])
        )

    async def forget(self, originals: Collection[str]) -> None:
        """Delete the thumbnails of files that are gone."""
        thumbnails = await storage.thumbnails_of(self._db.scan, list(originals))
        await self._db.write(lambda tx: storage.remove_thumbnails(tx, thumbnails))
        await self._files.remove([each.file_id for each in thumbnails if each.file_id])

    async def close(self) -> None:
        """Stop making any."""
        await self._making.close()
        await self._workers.close()

    async def _make(self, original: Content, wanted: Wanted, surplus: list[Thumbnail]) -> Content:
        # Of one image one at a time: in many sizes at once it would take the turns of all others.
        async with self._turns.setdefault(original.file_id, asyncio.Lock()):
            self._check_failures(original)
            try:
                picture = await self._picture(original, wanted)
            except (TooCostly, NotAnImage) as error:
                failure = _failure(error, original)
                until = self._clock.monotonic() + _FAILURE_SECONDS
                self._failures.put(original.file_id, (until, failure))
                raise MatrixError(*failure) from None
        thumbnail = Thumbnail(
            original=original.file_id,
            width=wanted.width,
            height=wanted.height,
            method=wanted.method,
            animated=wanted.animated,
            file_id=None,
            size=original.size,
            content_type=picture.content_type,
            created_at=self._clock.now_ms(),
        )
        if picture.data is not None:
            async with self._files.create() as file:
                await file.write(picture.data)
                await file.keep()
            thumbnail = msgspec.structs.replace(thumbnail, file_id=file.file_id, size=file.size)

        async def store(tx: Transaction) -> bool:
            # It may have been let go meanwhile, and its thumbnails with it.
            if not await storage.is_original(tx, original.file_id):
                return False
            await storage.remove_thumbnails(tx, surplus)
            await storage.put_thumbnail(tx, thumbnail)
            return True

        unwanted = surplus if await self._db.write(store) else [thumbnail]
        await self._files.remove([each.file_id for each in unwanted if each.file_id])
        if unwanted == [thumbnail]:
            raise not_found("There is no such media any more")
        return self._content(original, thumbnail)

    def _check_failures(self, original: Content) -> None:
        failed = self._failures.get(original.file_id)
        if failed is not None and self._clock.monotonic() < failed[0]:
            raise MatrixError(*failed[1])

    async def _picture(self, original: Content, wanted: Wanted) -> Picture:
        if original.size > self._max_bytes:
            raise TooCostly
        job = ImageJob(
            size=original.size,
            width=wanted.width,
            height=wanted.height,
            method=wanted.method,
            animated=wanted.animated,
            max_pixels=self._max_pixels,
        )
        try:
            async with aclosing(original.read()) as image:
                return await self._workers.make(image, job)
        except (TooCostly, NotAnImage):
            if not job.animated:
                raise
        # What is too much to be shown moving can be shown still.
        async with aclosing(original.read()) as image:
            return await self._workers.make(image, msgspec.structs.replace(job, animated=False))

    def _content(self, original: Content, thumbnail: Thumbnail) -> Content:
        filename = "thumbnail." + thumbnail.content_type.partition("/")[2]
        if thumbnail.file_id is None:
            return msgspec.structs.replace(original, content_type=thumbnail.content_type, filename=filename)
        return msgspec.structs.replace(
            original,
            files=self._files,
            file_id=thumbnail.file_id,
            size=thumbnail.size,
            content_type=thumbnail.content_type,
            filename=filename,
        )


def _step(side: int) -> int:
    return STEPS[min(bisect_left(STEPS, side), len(STEPS) - 1)]


def _upwards(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _kind(thumbnail: Thumbnail) -> Wanted:
    method: Method = "crop" if thumbnail.method == "crop" else "scale"
    return Wanted(thumbnail.width, thumbnail.height, method, thumbnail.animated)


def _failure(error: TooCostly | NotAnImage, original: Content) -> Failure:
    if isinstance(error, NotAnImage):
        return 400, "M_UNKNOWN", "No thumbnail can be made of this content"
    return 502 if original.is_remote else 413, "M_TOO_LARGE", "The content is too large for a thumbnail"
