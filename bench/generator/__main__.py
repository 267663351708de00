"""``python -m bench.generator FD``: makes load on one server as it is told through the pipe ``FD``."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection as Pipe

import uvloop

from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.generator.site import Site
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import OneRound, Round, as_round


async def _serve(pipe: Pipe) -> None:
    site, size = pipe.recv()
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


if __name__ == "__main__":
    uvloop.run(_serve(Pipe(int(sys.argv[1]))))
