"""Media of this server's users, copies of other servers' media, and thumbnails of both.

Rows only: the files that they name are kept by ``homeserver.media.files``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from homeserver.storage.database import Reader, Row, Transaction

Table = Literal["local_media", "remote_media", "thumbnails"]


class LocalMedia(msgspec.Struct, frozen=True, gc=False):
    """An id that a user of this server was given, and its content once there is any; times in ms."""

    media_id: str
    user_id: str
    created_at: int
    #: Until when content may be uploaded, for an id that was made without it.
    expires_at: int | None = None
    #: ``None`` until there is content.
    file_id: str | None = None
    size: int = 0
    content_type: str | None = None
    filename: str | None = None
    #: Whether the deprecated endpoints give it to anybody.
    is_public: bool = False


class RemoteMedia(msgspec.Struct, frozen=True, gc=False):
    """A copy of another server's media; times in ms."""

    server_name: str
    media_id: str
    file_id: str
    size: int
    content_type: str
    filename: str | None
    fetched_at: int
    last_used_at: int
    is_public: bool = False


class Thumbnail(msgspec.Struct, frozen=True, gc=False):
    """A thumbnail of the file ``original``; ``None`` for ``file_id`` means that file itself."""

    original: str
    width: int
    height: int
    method: str
    file_id: str | None
    size: int
    content_type: str
    created_at: int
    animated: bool


_LOCAL = "media_id, user_id, created_at, expires_at, file_id, size, content_type, filename, is_public"
_REMOTE = "server_name, media_id, file_id, size, content_type, filename, fetched_at, last_used_at, is_public"
_THUMBNAIL = "original, width, height, method, file_id, size, content_type, created_at, animated"


async def add_local(tx: Transaction, media: LocalMedia) -> None:
    """Store a new id, with or without content."""
    await tx.execute(
        f"INSERT INTO local_media ({_LOCAL}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        media.media_id,
        media.user_id,
        media.created_at,
        media.expires_at,
        media.file_id,
        media.size,
        media.content_type,
        media.filename,
        int(media.is_public),
    )


async def fill_local(
    tx: Transaction,
    media_id: str,
    *,
    file_id: str,
    size: int,
    content_type: str,
    filename: str | None,
) -> bool:
    """Give content to an id that has none; false, and nothing stored, for any other."""
    return bool(
        await tx.execute(
            """UPDATE local_media SET file_id = $2, size = $3, content_type = $4, filename = $5
               WHERE media_id = $1 AND file_id IS NULL""",
            media_id,
            file_id,
            size,
            content_type,
            filename,
        )
    )


async def local(r: Reader, media_id: str) -> LocalMedia | None:
    """An id of this server, if it was given out."""
    row = await r.fetch_row(f"SELECT {_LOCAL} FROM local_media WHERE media_id = $1", media_id)
    return LocalMedia(*_with_flag(row)) if row else None


async def pending(r: Reader, user_id: str, now: int) -> int:
    """How many ids a user has that could still be given content."""
    count: int = await r.fetch_value(
        "SELECT COUNT(*) FROM local_media WHERE file_id IS NULL AND expires_at > $2 AND user_id = $1",
        user_id,
        now,
    )
    return count


async def remove_expired(tx: Transaction, now: int) -> int:
    """Delete the ids that got no content in time; how many."""
    return await tx.execute("DELETE FROM local_media WHERE file_id IS NULL AND expires_at <= $1", now)


async def bytes_of_user(r: Reader, user_id: str) -> int:
    """How much a user has uploaded."""
    total = await r.fetch_value("SELECT SUM(size) FROM local_media WHERE user_id = $1", user_id)
    return int(total or 0)


async def put_remote(tx: Transaction, media: RemoteMedia) -> None:
    """Store a copy, in place of an older one."""
    await tx.execute(
        f"""INSERT INTO remote_media ({_REMOTE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (server_name, media_id) DO UPDATE SET
                file_id = excluded.file_id, size = excluded.size, content_type = excluded.content_type,
                filename = excluded.filename, fetched_at = excluded.fetched_at,
                last_used_at = excluded.last_used_at, is_public = excluded.is_public""",
        media.server_name,
        media.media_id,
        media.file_id,
        media.size,
        media.content_type,
        media.filename,
        media.fetched_at,
        media.last_used_at,
        int(media.is_public),
    )


async def remote(r: Reader, server_name: str, media_id: str) -> RemoteMedia | None:
    """The copy of another server's media, if there is one."""
    row = await r.fetch_row(
        f"SELECT {_REMOTE} FROM remote_media WHERE server_name = $1 AND media_id = $2", server_name, media_id
    )
    return RemoteMedia(*_with_flag(row)) if row else None


async def note_use(tx: Transaction, file_ids: Iterable[str], now: int) -> None:
    """Remember when copies were last asked for."""
    await tx.execute_many(
        "UPDATE remote_media SET last_used_at = $2 WHERE file_id = $1",
        [(file_id, now) for file_id in file_ids],
    )


async def remote_bytes(r: Reader) -> int:
    """How much all copies hold together."""
    return int(await r.fetch_value("SELECT SUM(size) FROM remote_media") or 0)


async def longest_unused(r: Reader, limit: int, *, before: int = 1 << 62) -> list[RemoteMedia]:
    """Copies that nobody asked for in the longest time, those first; only those last used before a time."""
    rows = await r.fetch(
        f"SELECT {_REMOTE} FROM remote_media WHERE last_used_at < $2 ORDER BY last_used_at LIMIT $1",
        limit,
        before,
    )
    return [RemoteMedia(*_with_flag(row)) for row in rows]


async def remove_remote(tx: Transaction, file_ids: Iterable[str]) -> None:
    """Forget copies, by their files."""
    await tx.execute_many("DELETE FROM remote_media WHERE file_id = $1", [(each,) for each in file_ids])


async def put_thumbnail(tx: Transaction, thumbnail: Thumbnail) -> None:
    """Store a thumbnail, in place of an older one of the same kind."""
    await tx.execute(
        f"""INSERT INTO thumbnails ({_THUMBNAIL}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (original, width, height, method, animated) DO UPDATE SET
                file_id = excluded.file_id, size = excluded.size,
                content_type = excluded.content_type, created_at = excluded.created_at""",
        thumbnail.original,
        thumbnail.width,
        thumbnail.height,
        thumbnail.method,
        thumbnail.file_id,
        thumbnail.size,
        thumbnail.content_type,
        thumbnail.created_at,
        int(thumbnail.animated),
    )


async def thumbnails_of(r: Reader, originals: Sequence[str]) -> list[Thumbnail]:
    """Every thumbnail of some files, newest first."""
    rows = await r.fetch_in(
        f"SELECT {_THUMBNAIL} FROM thumbnails WHERE original IN $1 ORDER BY created_at DESC", originals
    )
    return [Thumbnail(*_with_flag(row)) for row in rows]


async def is_original(r: Reader, file_id: str) -> bool:
    """Whether a file is that of some media, of here or of elsewhere."""
    return bool(
        await r.fetch_value(
            """SELECT 1 FROM local_media WHERE file_id = $1
               UNION ALL SELECT 1 FROM remote_media WHERE file_id = $1""",
            file_id,
        )
    )


async def remove_thumbnails(tx: Transaction, thumbnails: Iterable[Thumbnail]) -> None:
    """Forget thumbnails."""
    await tx.execute_many(
        """DELETE FROM thumbnails
           WHERE original = $1 AND width = $2 AND height = $3 AND method = $4 AND animated = $5""",
        [(each.original, each.width, each.height, each.method, int(each.animated)) for each in thumbnails],
    )


async def known_files(r: Reader, table: Table, file_ids: Sequence[str]) -> set[str]:
    """Those of the files that a row names."""
    rows = await r.fetch_in(f"SELECT file_id FROM {table} WHERE file_id IN $1", file_ids)
    return {row[0] for row in rows}


def _with_flag(row: Row) -> list[Any]:
    """A row whose last column is a truth value, which the database keeps as a number."""
    return [*row[:-1], bool(row[-1])]
