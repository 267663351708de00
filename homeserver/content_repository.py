"""The content repository, wired: files, uploads, copies of other servers' media, thumbnails."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from homeserver.config.media import Media as Settings
from homeserver.core import Core
from homeserver.media.files import Files, FolderFiles
from homeserver.media.forsaken import ForsakenMedia, fill_names
from homeserver.media.image_workers import ImageWorkers
from homeserver.media.remote import RemoteCopies, RemoteMedia
from homeserver.media.repository import Media
from homeserver.media.thumbnails import Thumbnails
from homeserver.media.uploads import Uploads
from homeserver.storage import media as storage
from homeserver.storage.database import Database

if TYPE_CHECKING:
    from homeserver.media.s3_bucket import Bucket

_PLACES: Final = ("local", "remote", "thumbnails")


class ContentRepository(msgspec.Struct, frozen=True, kw_only=True):
    """Where media is put and found, and what has to be done about it now and then."""

    uploads: Uploads
    copies: RemoteCopies
    media: Media
    thumbnails: Thumbnails
    settings: Settings
    forsaken: ForsakenMedia
    files: dict[storage.Table, Files]
    #: Where all of them are kept, if it is to be opened by itself.
    bucket: Bucket | None

    async def open(self, core: Core, closing: AsyncExitStack) -> None:
        """Open what files are kept in, begin what is done once; ``closing`` closes it.  ``OSError``."""
        if self.bucket is not None:
            await self.bucket.open()
            closing.push_async_callback(self.bucket.close)
        for files in self.files.values():
            await files.open()
            closing.push_async_callback(files.close)
        filling = core.background.start(fill_names(core.db, core.server_name), "index of media in events")
        closing.callback(filling.cancel)
        closing.push_async_callback(self.copies.close)
        closing.push_async_callback(self.thumbnails.close)

    async def remove_orphans(self, db: Database) -> None:
        """Delete files that no row names, as a crash leaves them."""
        for table, files in self.files.items():
            await files.remove_orphans(partial(storage.known_files, db.scan, table))


def wire_content_repository(
    core: Core, settings: Settings, remote: RemoteMedia | None, *, kept: Iterable[str] = ()
) -> ContentRepository:
    """Wire it; nothing is touched before ``open``.

    ``remote`` fetches other servers' media; ``kept`` are ``mxc://`` URIs that are never let go.
    """
    local, copied, thumbnail, bucket = _places(settings)
    public = settings.unauthenticated_access
    uploads = Uploads(
        db=core.db,
        files=local,
        clock=core.clock,
        server_name=core.server_name,
        quota=settings.max_bytes_per_user,
        public=public,
    )
    thumbnails = Thumbnails(
        db=core.db,
        files=thumbnail,
        clock=core.clock,
        workers=ImageWorkers(),
        max_bytes=max(settings.max_upload_bytes, settings.max_remote_bytes),
        max_pixels=settings.max_image_pixels,
        animated=settings.animated_thumbnails,
    )
    copies = RemoteCopies(
        db=core.db,
        files=copied,
        clock=core.clock,
        remote=remote if settings.allow_remote else None,
        max_bytes=settings.max_remote_bytes,
        cache_bytes=settings.remote_cache_bytes,
        days=settings.remote_cache_days,
        public=public,
        dropped=thumbnails.forget,
    )
    media = Media(
        uploads=uploads,
        files=local,
        copies=copies,
        copied=copied,
        server_name=core.server_name,
        public=public,
    )
    forsaken = ForsakenMedia(
        db=core.db,
        files=local,
        clock=core.clock,
        server_name=core.server_name,
        enabled=settings.delete_with_events,
        kept=[uri.rpartition("/")[2] for uri in kept],
        dropped=thumbnails.forget,
    )
    return ContentRepository(
        uploads=uploads,
        copies=copies,
        media=media,
        thumbnails=thumbnails,
        settings=settings,
        forsaken=forsaken,
        bucket=bucket,
        files={"local_media": local, "remote_media": copied, "thumbnails": thumbnail},
    )


def _places(settings: Settings) -> tuple[Files, Files, Files, Bucket | None]:
    """Where uploads, copies and thumbnails are kept."""
    if settings.s3 is None:
        local, copied, thumbnails = (FolderFiles(settings.folder / name) for name in _PLACES)
        return local, copied, thumbnails, None
    # What it needs is there only where somebody wants it; the configuration has seen to that.
    from homeserver.media.s3_bucket import Bucket  # noqa: PLC0415
    from homeserver.media.s3_files import S3Files  # noqa: PLC0415

    bucket = Bucket(settings.s3)
    in_bucket = [S3Files(bucket, name) for name in _PLACES]
    return in_bucket[0], in_bucket[1], in_bucket[2], bucket
