"""``/.well-known/matrix/server`` of a whole server, listener by listener."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest

from homeserver.config import load_config
from homeserver.main import Server
from homeserver.new_server import write_signing_key
from tests.processes import LOOPBACK, free_port

_LISTENERS = ("client", "federation", "health")

#: Status and JSON by what a listener serves, of a server with these lines in its configuration.
Ask: TypeAlias = Callable[..., Awaitable[dict[str, tuple[int, Any]]]]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Ask]:
    running: list[Server] = []

    async def start_and_ask(*lines: str) -> dict[str, tuple[int, Any]]:
        ports = {name: free_port() for name in _LISTENERS}
        listeners = [
            f"  - {{port: {port}, bind: {LOOPBACK}, serves: [{name}]}}" for name, port in ports.items()
        ]
        write_signing_key(tmp_path / "signing.key")
        config = tmp_path / "config.yaml"
        names = ["server_name: here.example", "signing_key: signing.key", "database: x.db"]
        config.write_text("\n".join([*names, *lines, "listeners:", *listeners]))
        running.append(await Server.start(load_config(config, {})))
        answers = {}
        async with aiohttp.ClientSession() as session:
            for name, port in ports.items():
                async with session.get(f"http://{LOOPBACK}:{port}/.well-known/matrix/server") as response:
                    answers[name] = (response.status, await response.json())
        return answers

    yield start_and_ask
    for server in running:
        await server.stop()


async def test_it_is_told_wherever_people_may_be_led(ask: Ask) -> None:
    answers = await ask("federation: {advertise: 'matrix.here.example:443'}")
    told = (200, {"m.server": "matrix.here.example:443"})
    assert answers["client"] == answers["federation"] == told
    assert answers["health"][0] == 404


@pytest.mark.parametrize("lines", [(), ("federation: {advertise: matrix.here.example, enabled: false}",)])
async def test_nothing_is_told_that_is_not_so(ask: Ask, lines: tuple[str, ...]) -> None:
    answers = await ask(*lines)
    status, reply = answers["client"]
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")
