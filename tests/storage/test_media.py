"""What is known of media, on both engines."""

from __future__ import annotations

from msgspec.structs import replace

from homeserver.storage import media
from homeserver.storage.database import Database
from homeserver.storage.media import LocalMedia, RemoteMedia, Thumbnail

ALICE, BOB = "@alice:a.org", "@bob:a.org"


def copy(number: int, *, size: int = 10, used: int = 0) -> RemoteMedia:
    return RemoteMedia("b.org", f"m{number}", f"f{number}", size, "a/b", "☕", 1, used, is_public=True)


def thumbnail(height: int, **fields: object) -> Thumbnail:
    made = Thumbnail("f1", 96, height, "crop", f"t{height}", 5, "image/png", height, False)
    return replace(made, **fields)  # type: ignore[arg-type]


async def test_content_is_given_once_to_an_id_without_it(database: Database) -> None:
    waiting = LocalMedia("m1", ALICE, 1, expires_at=100)
    await database.write(lambda tx: media.add_local(tx, waiting))
    assert await media.local(database.read, "m1") == waiting

    for file_id, filled in (("f1", True), ("f2", False)):
        result = await database.write(
            lambda tx, file_id=file_id: media.fill_local(  # type: ignore[misc]
                tx, "m1", file_id=file_id, size=7, content_type="a/b", filename=None
            )
        )
        assert result is filled
    assert await media.local(database.read, "m1") == replace(
        waiting, file_id="f1", size=7, content_type="a/b"
    )
    assert await media.local(database.read, "other") is None


async def test_ids_without_content_are_counted_and_expire(database: Database) -> None:
    rows = [
        LocalMedia("m1", ALICE, 1, expires_at=100),
        LocalMedia("m2", ALICE, 1, expires_at=200),
        LocalMedia("m3", BOB, 1, expires_at=200),
        LocalMedia("m4", ALICE, 1, file_id="f4", size=5, content_type="a/b", filename="n", is_public=True),
    ]
    for row in rows:
        await database.write(lambda tx, row=row: media.add_local(tx, row))  # type: ignore[misc]

    assert await media.pending(database.read, ALICE, 50) == 2
    assert await media.pending(database.read, ALICE, 100) == 1
    assert await database.write(lambda tx: media.remove_expired(tx, 100)) == 1
    assert [await media.local(database.read, row.media_id) for row in rows] == [None, *rows[1:]]


async def test_what_a_user_has_uploaded_is_added_up(database: Database) -> None:
    assert await media.bytes_of_user(database.read, ALICE) == 0
    for number, size in enumerate((2**40, 5)):
        row = LocalMedia(f"m{number}", ALICE, 1, file_id=f"f{number}", size=size)
        await database.write(lambda tx, row=row: media.add_local(tx, row))  # type: ignore[misc]

    assert await media.bytes_of_user(database.read, ALICE) == 2**40 + 5
    assert await media.bytes_of_user(database.read, BOB) == 0


async def test_copies_are_given_up_in_the_order_of_their_use(database: Database) -> None:
    for row in (copy(1, used=3), copy(2, used=1), copy(3, used=2)):
        await database.write(lambda tx, row=row: media.put_remote(tx, row))  # type: ignore[misc]
    await database.write(lambda tx: media.note_use(tx, ["f2", "unknown"], 9))

    assert await media.longest_unused(database.read, 2) == [copy(3, used=2), copy(1, used=3)]
    assert await media.remote_bytes(database.read) == 30
    await database.write(lambda tx: media.remove_remote(tx, ["f1", "f3"]))
    assert await media.remote(database.read, "b.org", "m2") == copy(2, used=9)
    assert await media.remote(database.read, "b.org", "m1") is None
    assert await media.remote(database.read, "c.org", "m2") is None


async def test_a_new_copy_takes_the_place_of_an_old_one(database: Database) -> None:
    await database.write(lambda tx: media.put_remote(tx, copy(1)))
    newer = replace(copy(1), file_id="f9", size=99, is_public=False)
    await database.write(lambda tx: media.put_remote(tx, newer))

    assert await media.remote(database.read, "b.org", "m1") == newer


async def test_thumbnails_belong_to_their_original(database: Database) -> None:
    rows = [
        thumbnail(1),
        thumbnail(2, file_id=None),
        thumbnail(2, animated=True, file_id="t3", created_at=3),
        thumbnail(1, original="f2", file_id="t4"),
    ]
    for row in rows:
        await database.write(lambda tx, row=row: media.put_thumbnail(tx, row))  # type: ignore[misc]

    assert await media.thumbnails_of(database.read, ["f1"]) == [rows[2], rows[1], rows[0]]
    assert len(await media.thumbnails_of(database.read, ["f1", "f2", "f3"])) == 4
    await database.write(lambda tx: media.remove_thumbnails(tx, rows[:2]))
    assert await media.thumbnails_of(database.read, ["f1"]) == [rows[2]]


async def test_files_are_known_by_the_table_that_names_them(database: Database) -> None:
    await database.write(lambda tx: media.add_local(tx, LocalMedia("m1", ALICE, 1, file_id="f1")))
    await database.write(lambda tx: media.put_remote(tx, copy(2)))
    await database.write(lambda tx: media.put_thumbnail(tx, thumbnail(3)))
    wanted = ["f1", "f2", "t3", "unknown"]

    assert await media.known_files(database.scan, "local_media", wanted) == {"f1"}
    assert await media.known_files(database.scan, "remote_media", wanted) == {"f2"}
    assert await media.known_files(database.scan, "thumbnails", wanted) == {"t3"}
