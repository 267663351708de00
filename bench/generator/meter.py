"""Counts what the measured parts of a round cost the server, its database and the generator itself."""

from __future__ import annotations

import time
from types import TracebackType

from bench.generator.site import Site
from bench.generator.usage import cpu_seconds, tree


class Meter:
    """Runs while its ``with`` block does; several blocks add up.

    What a round prepares stands outside of such a block, and what it checks afterwards too.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        #: Of the clock on the wall, and of the processors.
        self.seconds = self.server = self.database = self.generator = 0.0

    def __enter__(self) -> Meter:
        self._server_before = cpu_seconds(tree(self._site.pid))
        self._database_before = self._database()
        self._generator_before = time.process_time()
        self._before = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._before
        self.generator += time.process_time() - self._generator_before
        self.server += cpu_seconds(tree(self._site.pid)) - self._server_before
        self.database += self._database() - self._database_before

    def _database(self) -> float:
        return cpu_seconds(tree(self._site.database_pid)) if self._site.database_pid else 0.0
