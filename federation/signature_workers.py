"""The processes that verify many signatures: few, started when they are needed, ended when they are not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from federation.signature_worker import LENGTH, Batch, Verdict, decode_verdicts, encode_batch, framed
from homeserver.worker_process import WorkerProcess

_SCRIPT = Path(__file__).with_name("signature_worker.py")

_MOST_PROCESSES: Final = 2
#: One batch takes at most this long; it is a matter of milliseconds.
_PATIENCE_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 10.0


class WorkerLost(Exception):
    """A process could not be started, ended or did not answer; nothing is known of its batch."""


def processes_worth_while() -> int:
    """How many processes help here: none where they would take the event loop's only processor."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_PROCESSES) if usable > 1 else 0


class SignatureWorkers:
    """Verifies batches in up to ``processes`` processes at a time."""

    def __init__(self, processes: int, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._slots = asyncio.Semaphore(processes)
        self._idle_seconds = idle_seconds
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._retirement: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """How many processes there are."""
        return len(self._idle) + len(self._busy)

    async def verdicts(self, batch: Batch) -> list[Verdict]:
        """What each PDU of the batch turns out to be; raises ``WorkerLost``."""
        async with self._slots:
            if self._retirement is not None:
                self._retirement.cancel()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    return await self._verdicts(batch)
            except (TimeoutError, OSError, EOFError) as error:
                raise WorkerLost(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """End the processes."""
        if self._retirement is not None:
            self._retirement.cancel()
        ending = [*self._idle, *self._busy]
        self._idle = []
        await asyncio.gather(*(worker.end() for worker in ending))

    async def _verdicts(self, batch: Batch) -> list[Verdict]:
        worker = self._idle.pop() if self._idle else await _Worker.start(_SCRIPT)
        self._busy.add(worker)
        try:
            found = await worker.do(batch)
        except BaseException:
            await worker.end()
            raise
        finally:
            self._busy.discard(worker)
        self._idle.append(worker)
        loop = asyncio.get_running_loop()
        self._retirement = loop.call_later(self._idle_seconds, self._retire)
        return found

    def _retire(self) -> None:
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.dismiss()


class _Worker(WorkerProcess):
    async def do(self, batch: Batch) -> list[Verdict]:
        """The verdicts on a batch.  ``OSError`` or ``EOFError`` when the process is lost."""
        self.into.writelines(framed(encode_batch(batch)))
        await self.into.drain()
        length = int.from_bytes(await self.out.readexactly(LENGTH), "big")
        return decode_verdicts(await self.out.readexactly(length))
