"""The processes that read what strangers' servers answered: few at once, and bounded in time."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from homeserver.previews.found import Found, ImageKind, Job
from homeserver.worker_process import start_python

T = TypeVar("T")

_PROCESSES: Final = 2
#: One job takes at most this long, in seconds, and the answer is at most so large.
_PATIENCE: Final = 20.0
_MAX_ANSWER: Final = 1024 * 1024


class Unreadable(Exception):
    """Bytes that could not be read within the bounds."""


class Workers:
    """Has bytes read, each in a process that ends with it, so that nothing one page does outlives it."""

    def __init__(self, *, processes: int = _PROCESSES, seconds: float = _PATIENCE) -> None:
        self._slots = asyncio.Semaphore(processes)
        self._seconds = seconds

    async def describe(self, body: bytes, job: Job) -> Found:
        """What a page or an oEmbed answer says; raises ``Unreadable``."""
        return _decoded(await self._run(body, job), Found)

    async def identify(self, body: bytes) -> ImageKind | None:
        """What image it is, if it is one; raises ``Unreadable``."""
        answer = await self._run(body, Job("image"))
        return None if answer == b"null" else _decoded(answer, ImageKind)

    async def _run(self, body: bytes, job: Job) -> bytes:
        async with self._slots:
            process = await start_python("-m", "homeserver.previews.worker")
            try:
                async with asyncio.timeout(self._seconds):
                    answer, _ = await process.communicate(msgspec.json.encode(job) + b"\n" + body)
            except TimeoutError:
                raise Unreadable("It took too long") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode or not answer or len(answer) > _MAX_ANSWER:
            raise Unreadable("The process that read it has failed")
        return answer


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise Unreadable("The answer makes no sense") from error
