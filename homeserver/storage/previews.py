"""What was found at addresses that people wrote of, and the images that came with it.

Rows only; an image's content is media of this server (``storage.media``).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class Preview(msgspec.Struct, frozen=True, gc=False):
    """What was found at an address at some time; times in ms.

    ``preview`` is JSON, and ``None`` where there was none to be had; ``media_id`` its image.
    """

    url: str
    language: str
    fetched_at: int
    expires_at: int
    preview: str | None
    media_id: str | None = None


class Image(msgspec.Struct, frozen=True, gc=False):
    """The image of a preview, and where it was found; ``size`` in bytes, sides in pixels."""

    media_id: str
    file_id: str
    url: str
    size: int
    content_type: str
    width: int
    height: int
    fetched_at: int


_PREVIEW = "url, language, fetched_at, expires_at, preview, media_id"
_IMAGE = "media_id, file_id, url, size, content_type, width, height, fetched_at"
#: What was not there then may be there now, so a failure counts only until it expires.
_COUNTS = "url = $1 AND language = $2 AND (preview IS NOT NULL OR expires_at > $4)"


async def put(tx: Transaction, row: Preview) -> None:
    """Store what was found, in place of what was found at the very same time."""
    await tx.execute(
        f"""INSERT INTO url_previews ({_PREVIEW}) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (url, language, fetched_at) DO UPDATE SET
                expires_at = excluded.expires_at, preview = excluded.preview, media_id = excluded.media_id""",
        row.url,
        row.language,
        row.fetched_at,
        row.expires_at,
        row.preview,
        row.media_id,
    )


async def last_before(r: Reader, url: str, language: str, ts: int, now: int) -> Preview | None:
    """What was found last until ``ts``."""
    row = await r.fetch_row(
        f"""SELECT {_PREVIEW} FROM url_previews WHERE {_COUNTS} AND fetched_at <= $3
            ORDER BY fetched_at DESC LIMIT 1""",
        *(url, language, ts, now),
    )
    return Preview(*row) if row else None


async def first_after(r: Reader, url: str, language: str, ts: int, now: int) -> Preview | None:
    """What was found next after ``ts``."""
    row = await r.fetch_row(
        f"""SELECT {_PREVIEW} FROM url_previews WHERE {_COUNTS} AND fetched_at > $3
            ORDER BY fetched_at LIMIT 1""",
        *(url, language, ts, now),
    )
    return Preview(*row) if row else None


async def put_image(tx: Transaction, image: Image) -> None:
    """Store where an image was found."""
    await tx.execute(
        f"INSERT INTO preview_images ({_IMAGE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *msgspec.structs.astuple(image),
    )


async def image_at(r: Reader, url: str, since: int) -> Image | None:
    """The image last found at an address, not before ``since``."""
    row = await r.fetch_row(
        f"""SELECT {_IMAGE} FROM preview_images WHERE url = $1 AND fetched_at >= $2
            ORDER BY fetched_at DESC LIMIT 1""",
        *(url, since),
    )
    return Image(*row) if row else None


async def remove_old(tx: Transaction, *, failed_before: int, expired_before: int) -> int:
    """Forget failures, and previews, that expired by then; how many."""
    failed = await tx.execute(
        "DELETE FROM url_previews WHERE preview IS NULL AND expires_at <= $1", failed_before
    )
    return failed + await tx.execute(
        "DELETE FROM url_previews WHERE expires_at <= $1 AND preview IS NOT NULL", expired_before
    )


async def remove_beyond(tx: Transaction, keep: int) -> int:
    """Forget the oldest previews but for ``keep``; how many."""
    return await tx.execute(
        """DELETE FROM url_previews WHERE fetched_at <
           (SELECT MIN(fetched_at) FROM
            (SELECT fetched_at FROM url_previews ORDER BY fetched_at DESC LIMIT $1) AS kept)""",
        keep,
    )


async def unused_images(r: Reader, before: int, limit: int) -> list[Image]:
    """Images found before a time that no preview has any more."""
    rows = await r.fetch(
        f"""SELECT {_IMAGE} FROM preview_images AS image WHERE fetched_at < $1 AND NOT EXISTS
            (SELECT 1 FROM url_previews AS preview WHERE preview.media_id = image.media_id)
            ORDER BY fetched_at LIMIT $2""",
        before,
        limit,
    )
    return [Image(*row) for row in rows]


async def image_bytes(r: Reader) -> int:
    """How much all images hold together."""
    return int(await r.fetch_value("SELECT SUM(size) FROM preview_images") or 0)


async def oldest_images(r: Reader, limit: int) -> list[Image]:
    """The images that were found longest ago."""
    rows = await r.fetch(f"SELECT {_IMAGE} FROM preview_images ORDER BY fetched_at LIMIT $1", limit)
    return [Image(*row) for row in rows]


async def remove_images(tx: Transaction, media_ids: Iterable[str]) -> None:
    """Forget images, as media of this server too, and the previews that have them."""
    rows = [(media_id,) for media_id in media_ids]
    for table in ("url_previews", "preview_images", "local_media"):
        await tx.execute_many(f"DELETE FROM {table} WHERE media_id = $1", rows)
