"""Processes that work for this one: they get nothing of its environment, and end when their input does."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Self


async def start_python(*arguments: str) -> Process:
    """Start a program of this interpreter's, with pipes for its input and output; raises ``OSError``.

    It finds the same packages.  No secret is within its reach: neither the environment nor open files.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-s", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


class WorkerProcess:
    """A process that is given one job after the other; made by ``start``."""

    def __init__(self, process: Process, into: StreamWriter, out: StreamReader) -> None:
        self._process = process
        self.into = into
        self.out = out

    @classmethod
    async def start(cls, script: Path) -> Self:
        """Start a script; raises ``OSError``."""
        process = await start_python(str(script))
        assert process.stdin is not None
        assert process.stdout is not None
        return cls(process, process.stdin, process.stdout)

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def dismiss(self) -> None:
        """Let the process end by itself, as it does when its input ends."""
        self.into.close()
