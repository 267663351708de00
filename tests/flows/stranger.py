"""A homeserver that nobody shares a room with: it publishes its keys and signs what it asks."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from federation.server_keys import server_keys_response
from federation.signatures import authorization_header
from homeserver.protocol.canonical_json import decode, encode
from homeserver.protocol.signing import SigningKey, generate_signing_key
from tests.processes import LOOPBACK, Authority


@dataclass(frozen=True)
class Stranger:
    """Signs requests as the server ``name``."""

    name: str
    key: SigningKey

    def authorization(self, method: str, uri: str, destination: str, body: bytes | None) -> str:
        """The header for a request; ``uri`` is its path and query as sent."""
        content = None if body is None else encode(decode(body))
        return authorization_header(
            method=method, uri=uri, origin=self.name, destination=destination, body=content, key=self.key
        )


@asynccontextmanager
async def running_stranger(authority: Authority) -> AsyncIterator[Stranger]:
    """A stranger that can be asked for its keys at its name."""
    key = generate_signing_key("stranger")
    name = ""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path != "/_matrix/key/v2/server":
            return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "Nothing here"}, status=404)
        return web.json_response(server_keys_response(name, [key], [], int(time.time() * 1000)))

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate, authority.private_key)
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0, ssl_context=tls).start()
        name = f"localhost:{runner.addresses[0][1]}"
        yield Stranger(name, key)
    finally:
        await runner.cleanup()
