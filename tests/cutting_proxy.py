"""A proxy between clients and a server that holds back what comes, passes it on in odd pieces, and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.processes import LOOPBACK


class CuttingProxy:
    """Cuts each connection after some bytes from the server, from few to many; ``cuts`` counts them."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self.cuts = 0
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self._port)
        upstream = asyncio.create_task(self._pass_on(reader, up_writer))
        try:
            await self._pass_back(up_reader, writer)
        except ConnectionError:
            pass
        finally:
            upstream.cancel()
            for each in (writer, up_writer):
                each.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(4096):
                writer.write(piece)
                await writer.drain()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold back a while what comes; after so many bytes cut, in the middle of whatever it is."""
        allowed = round(2 ** self._random.uniform(8, 15))
        while piece := await reader.read(self._random.choice((7, 200, 1500, 65536))):
            if self._random.random() < 0.2:
                await asyncio.sleep(self._random.random() * 0.02)
            writer.write(piece[:allowed])
            await writer.drain()
            allowed -= len(piece)
            if allowed <= 0:
                self.cuts += 1
                return


@asynccontextmanager
async def cutting_proxy(port: int, *, seed: int) -> AsyncIterator[CuttingProxy]:
    """A proxy in front of a port of this machine."""
    proxy = CuttingProxy(port, seed)
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0)
    proxy.base_url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
