"""The handle by which a load generator, a process of its own, is told what to do.

Each server has a generator of its own, so that what one server's rooms and people take in the
generator is never counted with the other's.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.generator.site import Site
from bench.scenarios.size import Size


class GeneratorFailed(Exception):
    """The work on a server came to something else than it must; the message is the traceback there."""


class Generator:
    """One order at a time; ``result`` waits until it is done."""

    def __init__(self, site: Site, size: Size) -> None:
        self.site = site
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.generator", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )
        self._pipe.send((site, size))

    def prepare(self, key: str) -> None:
        """Order what a scenario needs."""
        self._pipe.send(("prepare", key))

    def round(self, key: str) -> None:
        """Order one round of a scenario that is prepared."""
        self._pipe.send(("round", key))

    def result(self) -> Any:
        """Of the last order: a ``Round``, or None.  Raises ``GeneratorFailed``."""
        try:
            error, result = self._pipe.recv()
        except (EOFError, OSError):
            raise GeneratorFailed(f"the load generator of {self.site.software} ended") from None
        if error:
            raise GeneratorFailed(f"{self.site.software}: {error}")
        return result

    def stop(self) -> None:
        """End the process, in good order if it can."""
        self._pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
