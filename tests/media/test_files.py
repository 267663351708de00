"""Files in a folder and in a bucket: complete or not there, under names that nobody chose."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from homeserver.media.files import Files, FolderFiles, NewFile


async def written(files: Files, *pieces: bytes) -> str:
    async with files.create() as file:
        for piece in pieces:
            await file.write(piece)
        await file.keep()
    return file.file_id


async def content(files: Files, file_id: str, start: int = 0, length: int = 1 << 30) -> bytes:
    pieces = []
    try:
        async for piece in files.read(file_id, start, length):
            pieces.append(piece)
    except EOFError:
        assert length == 1 << 30
    return b"".join(pieces)


async def everything(files: Files) -> list[str]:
    """The ids of all files there are."""
    found: list[str] = []

    async def known(file_ids: Sequence[str]) -> set[str]:
        found.extend(file_ids)
        return set(file_ids)

    # Times in a bucket are in whole seconds, and by another clock.
    await files.remove_orphans(known, age=-5)
    return sorted(found)


async def test_what_was_kept_can_be_read_as_a_whole_and_in_part(files: Files) -> None:
    file_id = await written(files, b"some ", b"bytes", b"!" * 1_000_000)

    assert await content(files, file_id) == b"some bytes" + b"!" * 1_000_000
    assert await content(files, file_id, 5, 5) == b"bytes"
    assert len(await content(files, file_id, 500_000, 400_000)) == 400_000


async def test_an_empty_file_is_a_file(files: Files) -> None:
    assert await content(files, await written(files), 0, 0) == b""


async def test_what_was_not_kept_leaves_nothing(files: Files) -> None:
    async with files.create() as file:
        await file.write(b"half")

    with suppress(ZeroDivisionError):
        async with files.create() as file:
            await file.write(b"x" * 12_000_000)
            raise ZeroDivisionError

    assert await everything(files) == []


async def test_a_file_whose_writer_gives_up_leaves_nothing(files: Files) -> None:
    begun = asyncio.Event()

    async def write(file: NewFile) -> None:
        async with file:
            while True:
                await file.write(b"x" * 300_000)
                begun.set()

    task = asyncio.create_task(write(files.create()))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert await everything(files) == []


async def test_removing_is_done_once_and_for_all(files: Files) -> None:
    file_id = await written(files, b"x")
    await files.remove([file_id])
    await files.remove([file_id])

    with pytest.raises(FileNotFoundError):
        await content(files, file_id)


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "a" * 31, "A" * 32, "0" * 32 + "/", "\x00" * 32]
)
async def test_no_path_is_made_from_what_is_no_id_of_ours(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="not the id of a file"):
        await content(files, name)


async def test_nothing_is_seen_of_a_file_before_it_is_complete(files: Files) -> None:
    async with files.create() as file:
        await file.write(b"x" * 6_000_000)
        assert not await files.has(file.file_id)
        await file.keep()
        assert await files.has(file.file_id)

    assert await everything(files) == [file.file_id]


async def test_a_large_file_is_whole_wherever_it_was_cut(files: Files) -> None:
    data = random.Random(1).randbytes(11_000_000)
    file_id = await written(files, *(data[at : at + 700_001] for at in range(0, len(data), 700_001)))

    assert await content(files, file_id) == data
    assert await content(files, file_id, 5_242_870, 20) == data[5_242_870:5_242_890]


async def test_asking_for_more_than_there_is_is_an_error(files: Files) -> None:
    file_id = await written(files, b"four")

    for start, length in ((0, 5), (4, 1), (100, 1)):
        with pytest.raises(EOFError):
            _ = [piece async for piece in files.read(file_id, start, length)]


async def test_what_is_not_there_cannot_be_read(files: Files) -> None:
    for length in (0, 10):
        with pytest.raises(FileNotFoundError):
            _ = [piece async for piece in files.read("0" * 32, 0, length)]
    assert not await files.has("0" * 32)


async def test_who_stops_reading_holds_nothing_up(files: Files) -> None:
    file_id = await written(files, b"x" * 3_000_000)
    for _ in range(100):
        async with aclosing(files.read(file_id, 0, 3_000_000)) as pieces:
            assert await anext(pieces)

    assert len(await content(files, file_id)) == 3_000_000


async def test_files_that_nobody_knows_are_removed_and_young_ones_are_not(files: Files) -> None:
    known, orphan = [await written(files, b"x") for _ in range(2)]

    async def known_files(file_ids: Sequence[str]) -> set[str]:
        return {known} & set(file_ids)

    assert await files.remove_orphans(known_files) == 0
    assert await files.remove_orphans(known_files, age=-5) == 1
    assert await everything(files) == [known]
    assert not await files.has(orphan)


# In a folder.


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / "files")) for path in tmp_path.rglob("*") if path.is_file())


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[FolderFiles]:
    folder = FolderFiles(tmp_path / "files")
    await folder.open()
    yield folder
    await folder.close()


async def test_what_a_crash_left_half_written_is_gone_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "files" / "incoming").mkdir(parents=True)
    (tmp_path / "files" / "incoming" / "half").write_bytes(b"half")
    folder = FolderFiles(tmp_path / "files")
    await folder.open()
    await folder.close()

    assert on_disk(tmp_path) == []


async def test_old_files_that_nobody_knows_are_removed_and_young_ones_are_not(
    folder: FolderFiles, tmp_path: Path
) -> None:
    known, orphan, young = [await written(folder, b"x") for _ in range(3)]
    for file_id in (known, orphan):
        hours_ago = time.time() - 7200
        os.utime(tmp_path / "files" / file_id[:2] / file_id[2:], (hours_ago, hours_ago))

    async def known_files(file_ids: Sequence[str]) -> set[str]:
        return {known} & set(file_ids)

    assert await folder.remove_orphans(known_files) == 1
    assert await content(folder, known) == await content(folder, young) == b"x"
    with pytest.raises(FileNotFoundError):
        await content(folder, orphan)


async def test_the_folder_is_for_nobody_else(folder: FolderFiles, tmp_path: Path) -> None:
    await written(folder, b"x")
    folders = [path for path in (tmp_path / "files").iterdir() if path.is_dir()]

    assert all(path.stat().st_mode & 0o077 == 0 for path in folders)
