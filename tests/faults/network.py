"""The network between servers, with faults: connections that are cut, delayed, broken off or swallowed.

Every server is known by the port of a proxy that stands before its own.  Who made a connection is
read from the kernel's tables (Linux), so that a fault can be put between two servers and leave
the others alone.  The proxies run in a thread, so that stories may block.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import LOOPBACK, Server

_CHUNK = 64 * 1024
_BREAKS_AFTER_BYTES = range(200, 12_000)
_LOOKS = 20


@dataclass(frozen=True)
class Fault:
    """What happens to the connections one server makes to another."""

    #: They are refused, and those that are open are cut.
    cut: bool = False
    #: They are accepted, and nothing is ever answered.
    swallow: bool = False
    #: How long each piece of data takes, in seconds.
    delay: float = 0.0
    #: How likely one is to break off somewhere in the middle.
    breaks: float = 0.0


_NONE = Fault()


class Network:
    """The proxies, and the faults between them; ``close`` ends it."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._servers: list[Server] = []
        self._proxies: list[asyncio.Server] = []
        self._faults: dict[tuple[str, str], Fault] = {}
        self._open: dict[asyncio.Task[None], tuple[str, str]] = {}
        #: Connections made so far, by who made them to whom.
        self.connections: Counter[tuple[str, str]] = Counter()
        self._thread.start()

    def attach(self, server: Server, public_port: int) -> None:
        """Stand before a server's first port at ``public_port``, the one its name tells."""
        self._servers.append(server)
        self._do(self._listen(server, public_port))

    def between(self, one: Server, other: Server, fault: Fault) -> None:
        """Put a fault on connections in both directions; ``Fault()`` takes it away."""
        self.from_to(one, other, fault)
        self.from_to(other, one, fault)

    def from_to(self, source: Server, target: Server, fault: Fault) -> None:
        """Put a fault on the connections that ``source`` makes to ``target``."""
        self._do(self._put(source.server_name, target.server_name, fault))

    def partition(self, *servers: Server) -> None:
        """None of the servers can reach another one."""
        self._among(servers, Fault(cut=True))

    def heal(self) -> None:
        """No more faults."""
        self._among(self._servers, _NONE)

    def close(self) -> None:
        """Cut everything and end the thread."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _among(self, servers: tuple[Server, ...] | list[Server], fault: Fault) -> None:
        for one in servers:
            for other in servers:
                if one is not other:
                    self.from_to(one, other, fault)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self, server: Server, public_port: int) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(server, reader, writer)

        self._proxies.append(await asyncio.start_server(connected, LOOPBACK, public_port))

    async def _put(self, source: str, target: str, fault: Fault) -> None:
        self._faults[source, target] = fault
        for task in [task for task, ends in self._open.items() if ends == (source, target)]:
            task.cancel()

    async def _end(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(
        self, target: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends = (await self._maker_of(writer.get_extra_info("peername")[1]), target.server_name)
        # A connection nobody is found to have made must not slip through a fault.
        fault = self._faults.get(ends, _NONE) if ends[0] else Fault(cut=True)
        self.connections[ends] += 1
        self._open[task] = ends
        try:
            if fault.swallow:
                await asyncio.Event().wait()
            if not fault.cut:
                await self._carry(target, fault, reader, writer)
        except (OSError, asyncio.CancelledError):
            # The server at one end is gone, or a fault came: the other end is cut, too.
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _carry(
        self, target: Server, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(LOOPBACK, target.ready_ports[0])
        breaks = self._random.random() < fault.breaks
        budget = self._random.choice(_BREAKS_AFTER_BYTES) if breaks else None
        ways = [
            asyncio.ensure_future(_pipe(reader, onward_writer, fault.delay, budget)),
            asyncio.ensure_future(_pipe(onward_reader, writer, fault.delay, None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            onward_writer.transport.abort()

    async def _maker_of(self, port: int) -> str:
        """The name of the server whose process has the connection from ``port``."""
        for _ in range(_LOOKS):  # the kernel's table may change while it is read
            inode = _inode_of(port)
            for server in self._servers:
                with suppress(AssertionError, OSError):  # one that does not run has no connections
                    if inode in _sockets_of(server.pid):
                        return server.server_name
            await asyncio.sleep(0.01)
        return ""


async def _pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, budget: int | None
) -> None:
    """Carry what comes, until its end or for ``budget`` bytes."""
    while data := await reader.read(_CHUNK):
        if delay:
            await asyncio.sleep(delay)
        if budget is not None:
            data, budget = data[:budget], budget - len(data)
        writer.write(data)
        await writer.drain()
        if budget is not None and budget <= 0:
            return


def _inode_of(port: int) -> str:
    """The socket that is connected from a loopback port."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and not fields[2].endswith(":0000"):
                return f"socket:[{fields[9]}]"
    return ""


def _sockets_of(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.add(os.readlink(entry))
    return found
