"""Files in a folder: complete or not there, under names that nobody chose."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from homeserver.media.files import FolderFiles, NewFile


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FolderFiles]:
    files = FolderFiles(tmp_path / "files")
    await files.open()
    yield files
    await files.close()


async def written(files: FolderFiles, *pieces: bytes) -> str:
    async with files.create() as file:
        for piece in pieces:
            await file.write(piece)
        await file.keep()
    return file.file_id


async def content(files: FolderFiles, file_id: str, start: int = 0, length: int = 1 << 30) -> bytes:
    pieces = []
    try:
        async for piece in files.read(file_id, start, length):
            pieces.append(piece)
    except EOFError:
        assert length == 1 << 30
    return b"".join(pieces)


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / "files")) for path in tmp_path.rglob("*") if path.is_file())


async def test_what_was_kept_can_be_read_as_a_whole_and_in_part(files: FolderFiles) -> None:
    file_id = await written(files, b"some ", b"bytes", b"!" * 1_000_000)

    assert await content(files, file_id) == b"some bytes" + b"!" * 1_000_000
    assert await content(files, file_id, 5, 5) == b"bytes"
    assert len(await content(files, file_id, 500_000, 400_000)) == 400_000


async def test_an_empty_file_is_a_file(files: FolderFiles) -> None:
    assert await content(files, await written(files), 0, 0) == b""


async def test_what_was_not_kept_leaves_nothing(files: FolderFiles, tmp_path: Path) -> None:
    async with files.create() as file:
        await file.write(b"half")

    with suppress(ZeroDivisionError):
        async with files.create() as file:
            await file.write(b"x" * 1_000_000)
            raise ZeroDivisionError

    assert on_disk(tmp_path) == []


async def test_a_file_whose_writer_gives_up_leaves_nothing(files: FolderFiles, tmp_path: Path) -> None:
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

    assert on_disk(tmp_path) == []


async def test_removing_is_done_once_and_for_all(files: FolderFiles) -> None:
    file_id = await written(files, b"x")
    await files.remove([file_id])
    await files.remove([file_id])

    with pytest.raises(FileNotFoundError):
        await content(files, file_id)


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "a" * 31, "A" * 32, "0" * 32 + "/", "\x00" * 32]
)
async def test_no_path_is_made_from_what_is_no_id_of_ours(files: FolderFiles, name: str) -> None:
    with pytest.raises(ValueError, match="not the id of a file"):
        await content(files, name)


async def test_what_a_crash_left_half_written_is_gone_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "files" / "incoming").mkdir(parents=True)
    (tmp_path / "files" / "incoming" / "half").write_bytes(b"half")
    files = FolderFiles(tmp_path / "files")
    await files.open()
    await files.close()

    assert on_disk(tmp_path) == []


async def test_old_files_that_nobody_knows_are_removed_and_young_ones_are_not(
    files: FolderFiles, tmp_path: Path
) -> None:
    known, orphan, young = [await written(files, b"x") for _ in range(3)]
    for file_id in (known, orphan):
        hours_ago = time.time() - 7200
        os.utime(tmp_path / "files" / file_id[:2] / file_id[2:], (hours_ago, hours_ago))

    async def known_files(file_ids: Sequence[str]) -> set[str]:
        return {known} & set(file_ids)

    assert await files.remove_orphans(known_files) == 1
    assert await content(files, known) == await content(files, young) == b"x"
    with pytest.raises(FileNotFoundError):
        await content(files, orphan)


async def test_the_folder_is_for_nobody_else(files: FolderFiles, tmp_path: Path) -> None:
    await written(files, b"x")
    folders = [path for path in (tmp_path / "files").iterdir() if path.is_dir()]

    assert all(path.stat().st_mode & 0o077 == 0 for path in folders)
