"""``/.well-known/matrix/server`` and ``policy_server`` of a whole server, listener by listener."""

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

    async def start_and_ask(*lines: str, of: str = "server") -> dict[str, tuple[int, Any]]:
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
                url = f"http://{LOOPBACK}:{port}/.well-known/matrix/{of}"
                async with session.get(url) as response:
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


async def test_the_key_of_a_policy_server_is_told(ask: Ask) -> None:
    key = "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s"
    answers = await ask(f"federation: {{policy_server_key: {key}}}", of="policy_server")
    assert answers["client"] == answers["federation"] == (200, {"public_keys": {"ed25519": key}})


async def test_without_a_policy_server_there_is_no_key(ask: Ask) -> None:
    status, reply = (await ask(of="policy_server"))["client"]
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")
