"""Another server, for real: HTTPS on a loopback port, answering what a test tells it to."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trustme
from aiohttp import web

PEER_NAME = "peer.example"


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    raw_path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return web.Response(status=self.status, body=body, headers=self.headers)


class Peer:
    """Answers requests by what ``answer`` returns, and remembers them in ``asked``."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections: set[Any] = set()
        self.answer: Callable[[Asked], Answer] = lambda asked: Answer()
        self.port = 0

    def answers(self, *answers: Answer) -> None:
        """Give these answers, one after the other."""
        waiting = list(answers)
        self.answer = lambda asked: waiting.pop(0)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.raw_path, headers, await request.read())
        self.asked.append(asked)
        self.connections.add(request.protocol)
        return self.answer(asked).response()


@asynccontextmanager
async def running_peer(authority: trustme.CA, *names: str) -> AsyncIterator[Peer]:
    """A peer whose certificate is for ``names``."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(tls)
    peer = Peer()
    runner = web.ServerRunner(web.Server(peer.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        await runner.cleanup()
