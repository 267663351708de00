"""The content repository, wired: files, uploads, copies of other servers' media, thumbnails."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from homeserver.config import Media as Settings
from homeserver.core import Core
from homeserver.media.files import FolderFiles
from homeserver.media.image_workers import ImageWorkers
from homeserver.media.remote import RemoteCopies, RemoteMedia
from homeserver.media.repository import Media
from homeserver.media.thumbnails import Thumbnails
from homeserver.media.uploads import Uploads
from homeserver.storage import media as storage


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRepository:
    """Where media is put and found, and what has to be done about it now and then."""

    uploads: Uploads
    copies: RemoteCopies
    media: Media
    thumbnails: Thumbnails
    settings: Settings
    files: dict[storage.Table, FolderFiles]

    async def open(self, core: Core, closing: AsyncExitStack) -> None:
        """Make the folders and begin to clear away what a crash left; ``closing`` closes it.  ``OSError``."""
        for table, files in self.files.items():
            await files.open()
            closing.push_async_callback(files.close)
            known = partial(storage.known_files, core.db.scan, table)
            search = core.background.start(files.remove_orphans(known), f"files without a row in {table}")
            closing.callback(search.cancel)
        closing.push_async_callback(self.copies.close)
        closing.push_async_callback(self.thumbnails.close)


def wire_content_repository(core: Core, settings: Settings, remote: RemoteMedia | None) -> ContentRepository:
    """Wire it; nothing is touched before ``open``.  ``remote`` fetches other servers' media."""
    local, copied, thumbnail = (
        FolderFiles(settings.folder / name) for name in ("local", "remote", "thumbnails")
    )
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
    )
    copies = RemoteCopies(
        db=core.db,
        files=copied,
        clock=core.clock,
        remote=remote if settings.allow_remote else None,
        max_bytes=settings.max_remote_bytes,
        cache_bytes=settings.remote_cache_bytes,
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
    return ContentRepository(
        uploads=uploads,
        copies=copies,
        media=media,
        thumbnails=thumbnails,
        settings=settings,
        files={"local_media": local, "remote_media": copied, "thumbnails": thumbnail},
    )
