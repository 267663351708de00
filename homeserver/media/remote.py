"""Copies of other servers' media: fetched once, kept while there is room, given up when long unused.

How media is fetched is the business of whoever satisfies ``RemoteMedia``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, not_found
from homeserver.lookups import InFlight, Recent
from homeserver.media.files import Files
from homeserver.media.mxc import Mxc
from homeserver.storage import media as storage
from homeserver.storage.database import Database
from homeserver.storage.media import RemoteMedia as Copy

#: Fetched at the same time, and from one server; more wait for their turn.
_MAX_FETCHES: Final = 100
_MAX_FETCHES_OF_SERVER: Final = 20
#: What is too large, which shows only when much of it is here, is not fetched again for so long.
_TOO_LARGE_SECONDS: Final = 600.0
_REMEMBERED: Final = 1000
#: When there is too much, this share of the bound is left.
_TRIMMED_TO: Final = 0.9
_BATCH: Final = 100
_DAY_MS: Final = 24 * 3600 * 1000


class Described(msgspec.Struct, frozen=True):
    """What the other server said of its media."""

    content_type: str
    filename: str | None


class RemoteMedia(Protocol):
    """Fetches the media of other servers."""

    async def fetch(
        self, mxc: Mxc, write: Callable[[bytes], Awaitable[None]], *, max_bytes: int, wait_ms: int
    ) -> Described:
        """Give the content to ``write`` piece by piece, at most ``max_bytes`` of it.

        The other server may take ``wait_ms`` for content that is not uploaded yet.  Raises
        ``RemoteError``, and ``MatrixError``: 502 ``M_TOO_LARGE``, 404 ``M_NOT_FOUND``, 504
        ``M_NOT_YET_UPLOADED``.
        """
        ...


class RemoteCopies:
    """Finds other servers' media, here or there.

    ``max_bytes`` bounds one file, ``cache_bytes`` all of them together, and ``days`` how long one
    is kept that nobody asks for; ``dropped`` is told of files that were given up.
    """

    def __init__(
        self,
        *,
        db: Database,
        files: Files,
        clock: Clock,
        remote: RemoteMedia | None,
        max_bytes: int,
        cache_bytes: int,
        days: float | None,
        public: bool,
        dropped: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._remote = remote
        self._max_bytes = max_bytes
        self._cache_bytes = cache_bytes
        self._max_age = None if days is None else round(days * _DAY_MS)
        self._public = public
        self._dropped = dropped
        self._fetches: InFlight[Mxc, Copy] = InFlight()
        self._slots = asyncio.Semaphore(_MAX_FETCHES)
        #: By server, as long as something of it is fetched: one that is slow keeps no other waiting.
        self._slots_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._too_large: Recent[Mxc, tuple[float, str]] = Recent(_REMEMBERED)
        self._used: set[str] = set()
        self._trimming = asyncio.Lock()
        #: Bytes fetched since it was last looked how much there is.
        self._added = 0

    async def find(self, mxc: Mxc, *, may_fetch: bool, wait_ms: int) -> Copy:
        """The copy of some media, fetched if need be; ``M_NOT_FOUND`` and as ``RemoteMedia.fetch``."""
        copy = await storage.remote(self._db.read, mxc.server_name, mxc.media_id)
        # Copies are not backed up, so a row may be there without its file.
        if copy is None or not await self._files.has(copy.file_id):
            if not may_fetch or self._remote is None:
                raise not_found("There is no such media here")
            too_large = self._too_large.get(mxc)
            if too_large is not None and self._clock.monotonic() < too_large[0]:
                raise MatrixError(502, "M_TOO_LARGE", too_large[1])
            remote = self._remote
            copy = await self._fetches.run(mxc, lambda: self._fetch(remote, mxc, wait_ms))
        self._used.add(copy.file_id)
        return copy

    async def note_uses(self) -> None:
        """Remember which copies were asked for since the last time."""
        used, self._used, now = self._used, set(), self._clock.now_ms()
        if used:
            await self._db.write(lambda tx: storage.note_use(tx, used, now))

    async def trim(self) -> None:
        """Give up the copies that were longest not asked for, until the rest fits."""
        async with self._trimming:
            excess = await storage.remote_bytes(self._db.scan) - self._cache_bytes
            self._added = 0
            if excess <= 0:
                return
            await self.note_uses()
            excess += int(self._cache_bytes * (1 - _TRIMMED_TO))
            while excess > 0 and (oldest := await storage.longest_unused(self._db.scan, _BATCH)):
                excess -= await self._give_up(oldest, excess)

    async def expire(self) -> None:
        """Give up the copies that nobody asked for in so many days."""
        if self._max_age is None:
            return
        async with self._trimming:
            await self.note_uses()
            before = self._clock.now_ms() - self._max_age
            while oldest := await storage.longest_unused(self._db.scan, _BATCH, before=before):
                await self._give_up(oldest, sum(copy.size for copy in oldest) + 1)

    async def close(self) -> None:
        """Stop fetching."""
        await self._fetches.close()
        await self.note_uses()

    async def _give_up(self, copies: Collection[Copy], wanted: int) -> int:
        """Delete copies from the first until ``wanted`` bytes are free; how many that were."""
        freed, files = 0, []
        for copy in copies:
            if freed >= wanted:
                break
            freed += copy.size
            files.append(copy.file_id)
        await self._db.write(lambda tx: storage.remove_remote(tx, files))
        await self._dropped(files)
        await self._files.remove(files)
        return freed

    async def _fetch(self, remote: RemoteMedia, mxc: Mxc, wait_ms: int) -> Copy:
        of_server = self._slots_of.setdefault(mxc.server_name, asyncio.Semaphore(_MAX_FETCHES_OF_SERVER))
        async with of_server, self._slots, self._files.create() as file:
            try:
                described = await remote.fetch(mxc, file.write, max_bytes=self._max_bytes, wait_ms=wait_ms)
            except MatrixError as error:
                if error.errcode == "M_TOO_LARGE":
                    self._too_large.put(mxc, (self._clock.monotonic() + _TOO_LARGE_SECONDS, error.message))
                raise
            await file.keep()
        now = self._clock.now_ms()
        copy = Copy(
            server_name=mxc.server_name,
            media_id=mxc.media_id,
            file_id=file.file_id,
            size=file.size,
            content_type=described.content_type,
            filename=described.filename,
            fetched_at=now,
            last_used_at=now,
            is_public=self._public,
        )
        await self._db.write(lambda tx: storage.put_remote(tx, copy))
        self._added += copy.size
        if self._added > self._cache_bytes * (1 - _TRIMMED_TO):
            await self.trim()
        return copy
