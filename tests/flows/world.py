"""A running server with a town in it, a strange server beside it, and how anybody asks it things."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.flows.bad import Bad
from tests.flows.stranger import Stranger, running_stranger
from tests.flows.town import Town, found_town
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

_TROUBLE = re.compile(r"Traceback|status=500")


@dataclass
class World:
    """A running server with a town in it, and how to ask it things."""

    server: Server
    town: Town
    stranger: Stranger
    http: aiohttp.ClientSession
    tls: ssl.SSLContext
    log_read: int = 0

    async def ask(self, row: Bad, base_url: str) -> tuple[str, Any, Any]:
        """Make the request; returns "status errcode", the body and the headers of the answer."""
        method, uri = self._request(row)
        body = self._body(row)
        headers = {name: Template(text).safe_substitute(self._names) for name, text in row.headers.items()}
        if row.by == "stranger":
            headers["Authorization"] = self.stranger.authorization(method, uri, self.server.server_name, body)
        elif row.by:
            headers["Authorization"] = f"Bearer {self.town.tokens[row.by]}"
        url = URL(base_url + uri, encoded=True)
        async with self.http.request(method, url, data=body, headers=headers, ssl=self.tls) as reply:
            answer = json.loads(await reply.read())
            errcode = answer.get("errcode", "") if isinstance(answer, dict) else ""
            return f"{reply.status} {errcode}".strip(), answer, reply.headers

    def new_trouble(self) -> str:
        """What the server's log has told since the last time, from the first mistake of its own on."""
        with self.server.log.open(errors="replace") as log:
            log.seek(self.log_read)
            lines = log.readlines()
            self.log_read = log.tell()
        first = next((at for at, line in enumerate(lines) if _TROUBLE.search(line)), len(lines))
        return "".join(line[:200] for line in lines[max(first - 1, 0) : first + 60] if first < len(lines))

    @property
    def _names(self) -> dict[str, str]:
        return {**self.town.names, "stranger": self.stranger.name}

    def _request(self, row: Bad) -> tuple[str, str]:
        quoted = {name: quote(text, safe="") for name, text in self._names.items()}
        method, _, path = Template(row.request).substitute(quoted).partition(" ")
        return method, path if path.startswith(("/_matrix", "//")) else f"/_matrix/client/v3{path}"

    def _body(self, row: Bad) -> bytes | None:
        if row.body is None or isinstance(row.body, bytes):
            return row.body
        return Template(json.dumps(row.body)).substitute(self._names).encode()


@asynccontextmanager
async def running_world(folder: Path, database: str | None = None) -> AsyncIterator[World]:
    """Everything started, with its files in ``folder``; ``database`` is a URL, by default SQLite."""
    authority = Authority(folder / "authority")
    server = inglenook(folder / "server", authority, database=database)
    await asyncio.to_thread(server.start)
    try:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            stranger = await stack.enter_async_context(running_stranger(authority))
            tls = ssl.create_default_context(cafile=str(authority.ca_file))
            yield World(server, await found_town(http, server), stranger, http, tls)
    finally:
        await asyncio.to_thread(server.stop)
