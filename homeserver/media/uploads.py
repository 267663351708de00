"""What people upload: at once, or to an id they were given before (client-server API, "Content repository").

An upload is acknowledged when its file and then its row are on disk.  Until then there
is nothing that anybody could see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden, limit_exceeded, not_found
from homeserver.media.files import Files, NewFile
from homeserver.media.mxc import Mxc, new_media_id
from homeserver.storage import media as storage
from homeserver.storage.database import Database, Reader, Transaction
from homeserver.storage.media import LocalMedia

#: How long an id waits for its content, and how many of a user's may.
PENDING_MS: Final = 24 * 3600 * 1000
MAX_PENDING: Final = 20
#: A whole upload takes at most this long, in seconds, however slowly it comes.
_PATIENCE: Final = 3600.0


class Description(msgspec.Struct, frozen=True):
    """What an upload says of itself; ``size`` in bytes where it says so beforehand."""

    content_type: str
    filename: str | None
    size: int | None


class Uploads:
    """Takes in uploads.

    ``quota`` bounds the bytes one user may have uploaded; ``public`` makes new media
    available from the deprecated endpoints, too.
    """

    def __init__(
        self,
        *,
        db: Database,
        files: Files,
        clock: Clock,
        server_name: str,
        quota: int | None,
        public: bool,
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._server_name = server_name
        self._quota = quota
        self._public = public
        self._arrivals: dict[str, set[asyncio.Event]] = {}

    async def upload(self, user_id: str, pieces: AsyncIterator[bytes], described: Description) -> Mxc:
        """Store content under a new id.  ``M_FORBIDDEN`` past the user's quota."""
        await self._check_quota(self._db.read, user_id, described.size or 0)
        media_id = new_media_id()
        async with self._files.create() as file:
            await _receive(pieces, file)

        async def store(tx: Transaction) -> None:
            await self._check_quota(tx, user_id, file.size)
            media = LocalMedia(
                media_id=media_id,
                user_id=user_id,
                created_at=self._clock.now_ms(),
                file_id=file.file_id,
                size=file.size,
                content_type=described.content_type,
                filename=described.filename,
                is_public=self._public,
            )
            await storage.add_local(tx, media)

        await self._store(store, file)
        return Mxc(self._server_name, media_id)

    async def create(self, user_id: str) -> tuple[Mxc, int]:
        """An id without content, and the time in ms until which content may be uploaded to it.

        ``M_LIMIT_EXCEEDED`` for a user with too many of them.
        """
        now, media_id = self._clock.now_ms(), new_media_id()
        expires_at = now + PENDING_MS

        async def store(tx: Transaction) -> None:
            if await storage.pending(tx, user_id, now) >= MAX_PENDING:
                raise limit_exceeded(60_000)
            media = LocalMedia(media_id, user_id, now, expires_at, is_public=self._public)
            await storage.add_local(tx, media)

        await self._db.write(store)
        return Mxc(self._server_name, media_id), expires_at

    async def upload_to(
        self, user_id: str, mxc: Mxc, pieces: AsyncIterator[bytes], described: Description
    ) -> None:
        """Store content under an id that ``create`` gave to this user.

        ``M_NOT_FOUND`` for other ids and expired ones, ``M_FORBIDDEN`` for another
        user's or past the quota, ``M_CANNOT_OVERWRITE_MEDIA`` where there is content.
        """
        media = await storage.local(self._db.read, mxc.media_id)
        if mxc.server_name != self._server_name or media is None:
            raise not_found("There is no such media")
        if media.user_id != user_id:
            raise forbidden("This media belongs to another user")
        if media.file_id is not None:
            raise _already_uploaded()
        if _is_expired(media, self._clock.now_ms()):
            raise not_found("This media id has expired")
        await self._check_quota(self._db.read, user_id, described.size or 0)
        async with self._files.create() as file:
            await _receive(pieces, file)

        async def fill(tx: Transaction) -> None:
            await self._check_quota(tx, user_id, file.size)
            filled = await storage.fill_local(
                tx,
                mxc.media_id,
                file_id=file.file_id,
                size=file.size,
                content_type=described.content_type,
                filename=described.filename,
            )
            if not filled:
                is_there = await storage.local(tx, mxc.media_id) is not None
                raise _already_uploaded() if is_there else not_found("There is no such media any more")

        await self._store(fill, file)
        for arrival in self._arrivals.get(mxc.media_id, ()):
            arrival.set()

    async def uploaded(self, media_id: str, seconds: float) -> LocalMedia | None:
        """An id of this server with its content, waited for if need be.

        ``None`` for an id that was never given out or has expired; ``M_NOT_YET_UPLOADED``
        when no content came in that time.
        """
        media = await self._usable(media_id)
        if media is None or media.file_id is not None:
            return media
        arrival = asyncio.Event()
        self._arrivals.setdefault(media_id, set()).add(arrival)
        try:
            async with asyncio.timeout(seconds):
                # Read again, for it may have come before the arrival was registered.
                while (media := await self._usable(media_id)) is not None and media.file_id is None:
                    await arrival.wait()
        except TimeoutError:
            raise MatrixError(504, "M_NOT_YET_UPLOADED", "There is no content yet") from None
        finally:
            self._arrivals[media_id].discard(arrival)
            if not self._arrivals[media_id]:
                del self._arrivals[media_id]
        return media

    async def forget_expired(self) -> None:
        """Delete the ids that got no content in time."""
        now = self._clock.now_ms()
        await self._db.write(lambda tx: storage.remove_expired(tx, now))

    async def _usable(self, media_id: str) -> LocalMedia | None:
        media = await storage.local(self._db.read, media_id)
        return None if media is None or _is_expired(media, self._clock.now_ms()) else media

    async def _check_quota(self, r: Reader, user_id: str, size: int) -> None:
        if self._quota is not None and await storage.bytes_of_user(r, user_id) + size > self._quota:
            raise forbidden("You have uploaded as much as this server keeps for you")

    async def _store(self, work: Callable[[Transaction], Awaitable[None]], file: NewFile) -> None:
        """Commit the row of a file; a file whose row was refused is deleted.

        After any other failure the row may be there all the same, so the file stays.
        """
        try:
            await self._db.write(work)
        except MatrixError:
            await self._files.remove([file.file_id])
            raise


async def _receive(pieces: AsyncIterator[bytes], file: NewFile) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in pieces:
                await file.write(piece)
    except TimeoutError:
        raise MatrixError(408, "M_UNKNOWN", "The upload took too long") from None
    await file.keep()


def _is_expired(media: LocalMedia, now: int) -> bool:
    return media.file_id is None and (media.expires_at or 0) <= now


def _already_uploaded() -> MatrixError:
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "This media has its content already")
