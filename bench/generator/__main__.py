"""``python -m bench.generator FD``: makes load on one server as it is told through the pipe ``FD``."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from bench.generator.prepared import Prepared


async def _serve(pipe: Pipe) -> None:
    site, programme, argument = pipe.recv()
    async with AsyncExitStack() as closing:
        doing = importlib.import_module(programme).Programme(Prepared(site, closing), argument)
        while (order := await asyncio.to_thread(_next_order, pipe)) is not None:
            try:
                result = await doing.do(*order)
            except Exception:
                pipe.send((traceback.format_exc(), None))
            else:
                pipe.send(("", result))


def _next_order(pipe: Pipe) -> tuple[Any, ...] | None:
    try:
        order: tuple[Any, ...] = pipe.recv()
    except EOFError:
        return None
    return order


if __name__ == "__main__":
    uvloop.run(_serve(Pipe(int(sys.argv[1]))))
