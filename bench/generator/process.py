"""The process that makes the load on one server, and the handle by which it is told what to do.

Each server has a generator of its own, so that what one server's rooms and people take in the
generator is never counted with the other's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.generator.site import Site
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import OneRound, Round, as_round
from bench.scenarios.size import Size


class GeneratorFailed(Exception):
    """The work on a server came to something else than it must; the message is the traceback there."""


class Generator:
    """A handle: one order at a time, ``result`` waits until it is done."""

    def __init__(self, site: Site, size: Size) -> None:
        self.site = site
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_run, args=(theirs, site, size), daemon=True)
        self._process.start()
        theirs.close()

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
        except EOFError:
            raise GeneratorFailed(f"the load generator of {self.site.software} ended") from None
        if error:
            raise GeneratorFailed(f"{self.site.software}: {error}")
        return result

    def stop(self) -> None:
        """End the process, in good order if it can."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def _run(pipe: Pipe, site: Site, size: Size) -> None:
    uvloop.run(_serve(pipe, site, size))


async def _serve(pipe: Pipe, site: Site, size: Size) -> None:
    scenarios = {scenario.key: scenario for scenario in SCENARIOS}
    ready: dict[str, OneRound] = {}
    async with AsyncExitStack() as closing:
        prepared = Prepared(site, closing)
        while (order := await asyncio.to_thread(_next_order, pipe)) is not None:
            what, key = order
            result = None
            try:
                if what == "prepare":
                    ready[key] = await scenarios[key].prepare(prepared, size)
                else:
                    result = await _measured(ready[key], site)
            except Exception:
                pipe.send((traceback.format_exc(), None))
            else:
                pipe.send(("", result))


async def _measured(one_round: OneRound, site: Site) -> Round:
    meter = Meter(site)
    return as_round(await one_round(meter), meter)


def _next_order(pipe: Pipe) -> tuple[str, str] | None:
    try:
        order: tuple[str, str] = pipe.recv()
    except EOFError:
        return None
    return order
