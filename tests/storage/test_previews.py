"""What is known of previews of links, on both engines."""

from __future__ import annotations

from msgspec.structs import replace

from homeserver.storage import media, previews
from homeserver.storage.database import Database
from homeserver.storage.media import LocalMedia
from homeserver.storage.previews import Image, Preview

URL, EN = "https://a.org/ä", "en"


def found(at: int, *, lasts: int = 10, **fields: object) -> Preview:
    made = Preview(URL, EN, at, at + lasts, f'{{"at":{at}}}')
    return replace(made, **fields)  # type: ignore[arg-type]


def image(number: int, *, at: int = 1) -> Image:
    return Image(f"m{number}", f"f{number}", "https://a.org/i", 10, "image/png", 3, 4, at)


async def put(database: Database, *rows: Preview) -> None:
    for row in rows:
        await database.write(lambda tx, row=row: previews.put(tx, row))  # type: ignore[misc]


async def put_images(database: Database, *images: Image) -> None:
    for each in images:
        local = LocalMedia(each.media_id, "", each.fetched_at, file_id=each.file_id, size=each.size)
        await database.write(lambda tx, local=local: media.add_local(tx, local))  # type: ignore[misc]
        await database.write(lambda tx, each=each: previews.put_image(tx, each))  # type: ignore[misc]


async def test_the_previews_of_an_address_are_found_by_their_time(database: Database) -> None:
    await put(database, found(10), found(30), found(20, language="de"), found(20, url="https://b.org"))

    assert await previews.last_before(database.read, URL, EN, 29, 100) == found(10)
    assert await previews.last_before(database.read, URL, EN, 30, 100) == found(30)
    assert await previews.last_before(database.read, URL, EN, 9, 100) is None
    assert await previews.first_after(database.read, URL, EN, 9, 100) == found(10)
    assert await previews.first_after(database.read, URL, EN, 10, 100) == found(30)
    assert await previews.first_after(database.read, URL, EN, 30, 100) is None


async def test_a_failure_counts_until_it_expires(database: Database) -> None:
    failure = found(20, preview=None)
    await put(database, found(10), failure)

    assert await previews.last_before(database.read, URL, EN, 25, 29) == failure
    assert await previews.first_after(database.read, URL, EN, 15, 29) == failure
    assert await previews.last_before(database.read, URL, EN, 25, 30) == found(10)
    assert await previews.first_after(database.read, URL, EN, 15, 30) is None


async def test_what_is_found_at_the_same_time_takes_its_place(database: Database) -> None:
    await put(database, found(10), found(10, preview="{}", expires_at=99))

    assert await previews.last_before(database.read, URL, EN, 10, 10) == found(
        10, preview="{}", expires_at=99
    )


async def test_old_previews_go_and_failures_before_them(database: Database) -> None:
    await put(database, found(10), found(30), found(12, preview=None), found(31, preview=None))

    removed = await database.write(lambda tx: previews.remove_old(tx, failed_before=22, expired_before=20))
    assert removed == 2
    assert await previews.last_before(database.read, URL, EN, 15, 0) is None
    assert await previews.last_before(database.read, URL, EN, 30, 0) == found(30)
    assert await previews.last_before(database.read, URL, EN, 31, 0) == found(31, preview=None)


async def test_only_so_many_previews_are_kept(database: Database) -> None:
    await put(database, *(found(at) for at in range(10, 15)))

    assert await database.write(lambda tx: previews.remove_beyond(tx, 9)) == 0
    assert await database.write(lambda tx: previews.remove_beyond(tx, 2)) == 3
    assert await previews.first_after(database.read, URL, EN, 0, 0) == found(13)


async def test_an_image_is_known_by_its_address_for_a_while(database: Database) -> None:
    await put_images(database, image(1, at=5), image(2, at=7))

    assert await previews.image_at(database.read, "https://a.org/i", 6) == image(2, at=7)
    assert await previews.image_at(database.read, "https://a.org/i", 8) is None
    assert await previews.image_at(database.read, "https://b.org/i", 0) is None


async def test_images_without_a_preview_are_found(database: Database) -> None:
    await put_images(database, image(1, at=5), image(2, at=6), image(3, at=7), image(4, at=8))
    await put(database, found(10, media_id="m2"))

    assert await previews.unused_images(database.scan, 8, 10) == [image(1, at=5), image(3, at=7)]
    assert await previews.unused_images(database.scan, 8, 1) == [image(1, at=5)]


async def test_images_are_added_up_and_go_as_media_and_with_their_previews(database: Database) -> None:
    assert await previews.image_bytes(database.read) == 0
    await put_images(database, image(1, at=5), image(2, at=4), image(3, at=6))
    await put(database, found(10, media_id="m1"), found(11, media_id="m3"))
    assert await previews.image_bytes(database.read) == 30
    assert await previews.oldest_images(database.read, 2) == [image(2, at=4), image(1, at=5)]

    await database.write(lambda tx: previews.remove_images(tx, ["m1", "m2"]))
    assert await previews.oldest_images(database.read, 5) == [image(3, at=6)]
    assert [await media.local(database.read, name) is None for name in ("m1", "m2", "m3")] == [
        True,
        True,
        False,
    ]
    assert await previews.first_after(database.read, URL, EN, 0, 0) == found(11, media_id="m3")
