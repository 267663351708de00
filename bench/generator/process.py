"""The handle by which a load generator, a process of its own, is told what to do.

Each server has a generator of its own, so that what one server's rooms and people take in the
generator is never counted with the other's.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.generator.site import Site


class GeneratorFailed(Exception):
    """The work on a server came to something else than it must; the message is the traceback there."""


class Generator:
    """One order at a time; ``result`` waits until it is done.

    ``programme`` is a module whose ``Programme`` does what is ordered: made of what several orders
    need (``Prepared``) and ``argument``, it has ``async do(*order)``.
    """

    def __init__(self, site: Site, programme: str, argument: Any = None) -> None:
        self.site = site
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.generator", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )
        self._pipe.send((site, programme, argument))

    def order(self, *what: Any) -> None:
        """Have something done; returns at once."""
        self._pipe.send(what)

    def result(self) -> Any:
        """Of the last order.  Raises ``GeneratorFailed``."""
        try:
            error, result = self._pipe.recv()
        except (EOFError, OSError):
            raise GeneratorFailed(f"the load generator of {self.site.software} ended") from None
        if error:
            raise GeneratorFailed(f"{self.site.software}: {error}")
        return result

    def do(self, *what: Any) -> Any:
        """Order, and wait for the result.  Raises ``GeneratorFailed``."""
        self.order(*what)
        return self.result()

    def moved(self, pid: int) -> None:
        """The server was started again, as another process."""
        self.site = replace(self.site, pid=pid)
        self.do("moved", self.site)

    def stop(self) -> None:
        """End the process, in good order if it can."""
        self._pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def generators(sites: Sequence[Site], programme: str, argument: Any = None) -> Iterator[list[Generator]]:
    """One for each server, until the block ends."""
    started = [Generator(site, programme, argument) for site in sites]
    try:
        yield started
    finally:
        for generator in started:
            generator.stop()
