"""Where the bytes of media are kept: an interface, and a folder of the disk behind it.

A file is written under a temporary name and takes its place only when it is complete
and on disk, so that whoever has its id may rely on it.  Ids are made here, from chance:
nothing that a client or a server sends is ever part of a path.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

T = TypeVar("T")

#: What is read or written at once.
PIECE = 256 * 1024
_INCOMING = "incoming"
FILE_ID = re.compile(r"[0-9a-f]{32}")
#: Looked up at once when files without a row are searched for.
_BATCH = 500
#: A file may be complete before its row is; so young ones are left alone.
ORPHAN_AGE_S = 3600.0


def new_file_id() -> str:
    """An id for a new file."""
    return secrets.token_hex(16)


class NewFile(Protocol):
    """A file being written, as an asynchronous context manager: gone at its end unless kept."""

    @property
    def file_id(self) -> str:
        """The id it will have."""
        ...

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    async def write(self, data: bytes) -> None:
        """Add to its end."""
        ...

    async def keep(self) -> None:
        """Put it in its place, on disk."""
        ...

    async def __aenter__(self) -> NewFile: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Files(Protocol):
    """A place for files, found again by their ids; ``open`` comes before anything else."""

    async def open(self) -> None:
        """Get ready, and clear away what was half written; ``OSError``."""
        ...

    async def close(self) -> None:
        """Let go of what it needed."""
        ...

    def create(self) -> NewFile:
        """A new file, to be written."""
        ...

    def read(self, file_id: str, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """A part of a file, in pieces; ``FileNotFoundError``."""
        ...

    async def has(self, file_id: str) -> bool:
        """Whether there is such a file."""
        ...

    async def remove(self, file_ids: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""
        ...

    async def remove_orphans(
        self, known: Callable[[Sequence[str]], Awaitable[set[str]]], *, age: float = ORPHAN_AGE_S
    ) -> int:
        """Delete files older than ``age`` seconds that ``known`` does not return; how many.

        They are left by a crash between a file and its row, or a row and its file.
        """
        ...


class FolderFiles:
    """Files in a folder, spread over 256 folders in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Its own threads: a slow disk must not hold up name resolution, which shares the loop's.
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="media-files")

    async def open(self) -> None:
        """See ``Files``; makes the folder if need be."""
        await self._in_thread(self._prepare)

    async def close(self) -> None:
        """See ``Files``."""
        await asyncio.to_thread(self._threads.shutdown)

    def create(self) -> NewFile:
        """See ``Files``."""
        file_id = new_file_id()
        return _FolderFile(file_id, self._folder / _INCOMING / file_id, self._path(file_id), self._in_thread)

    async def read(self, file_id: str, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See ``Files``."""
        file = await self._in_thread(lambda: _opened(self._path(file_id), start))
        try:
            while length > 0:
                piece = await self._in_thread(partial(file.read, min(length, PIECE)))
                if not piece:
                    raise EOFError(f"the media file {file_id} is shorter than it was")
                length -= len(piece)
                yield piece
        finally:
            file.close()

    async def has(self, file_id: str) -> bool:
        """See ``Files``."""
        return await self._in_thread(self._path(file_id).exists)

    async def remove(self, file_ids: Iterable[str]) -> None:
        """See ``Files``."""
        paths = [self._path(file_id) for file_id in file_ids]
        if paths:
            await self._in_thread(lambda: _unlink(paths))

    async def remove_orphans(
        self, known: Callable[[Sequence[str]], Awaitable[set[str]]], *, age: float = ORPHAN_AGE_S
    ) -> int:
        """See ``Files``."""
        removed, before = 0, time.time() - age
        everything = _files_before(self._folder, before)
        while batch := await self._in_thread(lambda: list(islice(everything, _BATCH))):
            orphans = set(batch) - await known(batch)
            await self.remove(orphans)
            removed += len(orphans)
        return removed

    def _path(self, file_id: str) -> Path:
        if not FILE_ID.fullmatch(file_id):
            raise ValueError(f"{file_id!r} is not the id of a file")
        return self._folder / file_id[:2] / file_id[2:]

    def _prepare(self) -> None:
        incoming = self._folder / _INCOMING
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in incoming.iterdir():
            left_over.unlink()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` to its end, even when cancelled: nothing may be closed under a thread that uses it."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise


class _FolderFile:
    def __init__(
        self,
        file_id: str,
        incoming: Path,
        place: Path,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self.file_id = file_id
        self.size = 0
        self._incoming = incoming
        self._place = place
        self._in_thread = in_thread
        self._file: FileIO | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0

    async def __aenter__(self) -> _FolderFile:
        await self._in_thread(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._incoming.unlink(missing_ok=True)

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= PIECE:
            await self._flush()

    async def keep(self) -> None:
        await self._flush()
        await self._in_thread(self._settle)
        self._file = None

    async def _flush(self) -> None:
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        await self._in_thread(lambda: _write_all(self._file, b"".join(pieces)))

    def _begin(self) -> None:
        self._file = self._incoming.open("xb", buffering=0)

    def _settle(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        self._place.parent.mkdir(mode=0o700, exist_ok=True)
        self._incoming.rename(self._place)
        for folder in (self._place.parent, self._place.parent.parent):
            _flush_folder(folder)


def _write_all(file: FileIO | None, data: bytes) -> None:
    assert file is not None
    # A single write to a raw file may be short.
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _opened(path: Path, start: int) -> FileIO:
    file = path.open("rb", buffering=0)
    file.seek(start)
    return file


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_before(folder: Path, before: float) -> Iterator[str]:
    """The ids of all files last written before a time."""
    for shard in folder.iterdir():
        if len(shard.name) != 2 or not shard.is_dir():
            continue
        for file in os.scandir(shard):
            with suppress(FileNotFoundError):
                if FILE_ID.fullmatch(shard.name + file.name) and file.stat().st_mtime < before:
                    yield shard.name + file.name
