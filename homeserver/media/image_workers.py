"""The processes that make thumbnails: few, bounded in time, replaced when one is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from homeserver.errors import limit_exceeded
from homeserver.worker_process import WorkerProcess

_SCRIPT = Path(__file__).with_name("image_worker.py")

_PROCESSES: Final = 2
#: One thumbnail takes at most this long, in seconds.
_PATIENCE: Final = 20.0
_MAX_WAITING: Final = 64
_MAX_RESULT: Final = 32 * 1024 * 1024
#: After so many thumbnails a process is replaced, so that no leak in a decoder lasts.
_JOBS_OF_A_PROCESS: Final = 500
_IDLE_SECONDS: Final = 60.0


class TooCostly(Exception):
    """An image that takes more time or memory than a thumbnail is worth."""


class NotAnImage(Exception):
    """Content of which no thumbnail can be made."""


class ImageJob(msgspec.Struct, frozen=True):
    """What is wanted of an image, as ``image_worker.Job`` has it; ``size`` is the image's, in bytes."""

    size: int
    width: int
    height: int
    method: str
    animated: bool
    max_pixels: int


class Picture(msgspec.Struct, frozen=True):
    """A thumbnail; ``data`` is ``None`` where the image itself serves."""

    content_type: str
    data: bytes | None


class ImageWorkers:
    """Has thumbnails made.  Processes are started when they are needed and end when they are not."""

    def __init__(self, *, processes: int = _PROCESSES, seconds: float = _PATIENCE) -> None:
        self._slots = asyncio.Semaphore(processes)
        self._seconds = seconds
        self._waiting = 0
        self._idle: list[_Worker] = []
        self._retirement: asyncio.TimerHandle | None = None

    async def make(self, image: AsyncIterator[bytes], job: ImageJob) -> Picture:
        """A thumbnail of ``image``.

        Raises ``TooCostly``, ``NotAnImage``, and ``M_LIMIT_EXCEEDED`` when too many wait already.
        """
        if self._waiting >= _MAX_WAITING:
            raise limit_exceeded(2_000)
        self._waiting += 1
        try:
            async with self._slots:
                return await self._make(image, job)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the processes."""
        if self._retirement is not None:
            self._retirement.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.end() for worker in idle))

    async def _make(self, image: AsyncIterator[bytes], job: ImageJob) -> Picture:
        if self._retirement is not None:
            self._retirement.cancel()
        worker = self._idle.pop() if self._idle else await _Worker.start(_SCRIPT)
        try:
            async with asyncio.timeout(self._seconds):
                outcome, picture = await worker.do(image, job)
        except (TimeoutError, OSError, EOFError) as error:
            await worker.end()
            raise TooCostly from error
        except BaseException:
            await worker.end()
            raise
        await self._put_back(worker)
        if outcome == "too_large":
            raise TooCostly
        if outcome == "unsupported":
            raise NotAnImage
        return picture

    async def _put_back(self, worker: _Worker) -> None:
        if worker.jobs >= _JOBS_OF_A_PROCESS:
            await worker.end()
        else:
            self._idle.append(worker)
        self._retirement = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire)

    def _retire(self) -> None:
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.dismiss()


class _Worker(WorkerProcess):
    #: How many jobs it has done.
    jobs = 0

    async def do(self, image: AsyncIterator[bytes], job: ImageJob) -> tuple[str, Picture]:
        """The outcome of a job, and the thumbnail.  ``EOFError`` when the process is lost."""
        self.jobs += 1
        self.into.write(json.dumps(msgspec.structs.asdict(job)).encode() + b"\n")
        async for piece in image:
            self.into.write(piece)
            await self.into.drain()
        line = await self.out.readline()
        if not line:
            raise EOFError("the process has ended")
        head = json.loads(line)
        if head["size"] > _MAX_RESULT:
            raise EOFError("the thumbnail is too large")
        data = await self.out.readexactly(head["size"])
        return head["outcome"], Picture(head["content_type"], data if head["outcome"] == "made" else None)
