"""What every client relies on before it has an account: discovery, CORS, health, rate limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.flows.conftest import PASSWORD, Register
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("http-basics")

CLIENT_API = "/_matrix/client/v3"


async def get(http: aiohttp.ClientSession, server: Server, path: str) -> tuple[int, Any]:
    async with http.get(server.client_url + path) as reply:
        return reply.status, await reply.json()


async def test_versions_tell_what_is_spoken(http: aiohttp.ClientSession, server: Server) -> None:
    status, body = await get(http, server, "/_matrix/client/versions")

    assert status == 200
    assert {"v1.1", "v1.11", "v1.19"} <= set(body["versions"])


async def test_login_offers_a_password(http: aiohttp.ClientSession, server: Server) -> None:
    status, body = await get(http, server, f"{CLIENT_API}/login")

    assert status == 200
    assert {"type": "m.login.password"} in body["flows"]


async def test_registration_offers_its_flows(http: aiohttp.ClientSession, server: Server) -> None:
    async with http.post(f"{server.client_url}{CLIENT_API}/register", json={"username": "x"}) as reply:
        body = await reply.json()

    assert reply.status == 401
    assert {"stages": ["m.login.dummy"]} in body["flows"]
    assert isinstance(body["session"], str)


async def test_capabilities_tell_the_room_versions(register: Register) -> None:
    alice = await register("alice")

    capabilities = (await alice.request("GET", "/capabilities"))["capabilities"]

    versions = capabilities["m.room_versions"]
    assert set(versions["available"]) >= {str(number) for number in range(1, 13)}
    assert versions["available"][versions["default"]] == "stable"


async def test_without_a_public_address_there_is_no_well_known(
    http: aiohttp.ClientSession, server: Server
) -> None:
    status, body = await get(http, server, "/.well-known/matrix/client")

    assert (status, body["errcode"]) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_matrix/client/versions"),
        ("GET", f"{CLIENT_API}/login"),
        ("GET", f"{CLIENT_API}/account/whoami"),
        ("GET", f"{CLIENT_API}/nothing"),
        ("POST", f"{CLIENT_API}/sync"),
        ("POST", f"{CLIENT_API}/login"),
        ("GET", "/.well-known/matrix/client"),
        ("GET", "/_matrix"),
    ],
)
async def test_every_answer_may_be_read_by_any_page(
    http: aiohttp.ClientSession, server: Server, method: str, path: str
) -> None:
    async with http.request(method, server.client_url + path) as reply:
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert reply.content_type == "application/json"


@pytest.mark.parametrize(
    "path", [f"{CLIENT_API}/sync", f"{CLIENT_API}/rooms/!a/send/m.room.message/1", "/_matrix"]
)
async def test_a_preflight_is_answered_without_a_token(
    http: aiohttp.ClientSession, server: Server, path: str
) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    async with http.options(server.client_url + path, headers=asks) as reply:
        assert reply.status in {200, 204}
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert {"GET", "POST", "PUT", "DELETE", "OPTIONS"} <= listed(reply, "Access-Control-Allow-Methods")
        assert {"X-Requested-With", "Content-Type", "Authorization"} <= listed(
            reply, "Access-Control-Allow-Headers"
        )


async def test_head_is_answered_like_get_without_a_body(http: aiohttp.ClientSession, server: Server) -> None:
    async with http.head(f"{server.client_url}/_matrix/client/versions") as reply:
        assert reply.status == 200
        assert await reply.read() == b""


async def test_the_old_name_of_the_api_still_works(http: aiohttp.ClientSession, server: Server) -> None:
    assert await get(http, server, "/_matrix/client/r0/login") == await get(
        http, server, f"{CLIENT_API}/login"
    )


async def test_a_token_may_stand_in_the_query(
    http: aiohttp.ClientSession, server: Server, register: Register
) -> None:
    alice = await register("alice")

    status, body = await get(http, server, f"{CLIENT_API}/account/whoami?access_token={alice.access_token}")

    assert (status, body["user_id"], body["device_id"]) == (200, alice.user_id, alice.device_id)


async def test_connections_are_kept(http: aiohttp.ClientSession, server: Server) -> None:
    async with http.get(f"{server.client_url}/_matrix/client/versions") as reply:
        assert reply.headers.get("Connection", "keep-alive").lower() == "keep-alive"


@pytest.fixture
async def guarded(tmp_path: Path, authority: Authority) -> AsyncIterator[Server]:
    """A server with a public address and a health page, that lets nobody hurry."""
    server = inglenook(tmp_path / "guarded", authority)
    path = server.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["public_base_url"] = "https://matrix.example.org"
    config["listeners"][0]["serves"] = ["client", "health", "metrics"]
    config["rate_limits"] = {
        "enabled": True,
        "login": {"per_second": 0.1, "burst": 2},
        "message": {"per_second": 0.5, "burst": 3},
    }
    path.write_text(yaml.safe_dump(config))
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def test_a_server_as_it_is_run_in_earnest(http: aiohttp.ClientSession, guarded: Server) -> None:
    """Well-known and health are there; who sends too fast is told when to come back, others go on."""
    status, well_known = await get(http, guarded, "/.well-known/matrix/client")
    assert (status, well_known) == (200, {"m.homeserver": {"base_url": "https://matrix.example.org"}})
    async with http.get(f"{guarded.client_url}/_inglenook/health") as reply:
        assert reply.status == 200
    async with http.get(f"{guarded.client_url}/_inglenook/metrics") as reply:
        assert reply.status == 200
        assert "# HELP" in await reply.text()

    alice, bob = Client(http, guarded), Client(http, guarded)
    await alice.register("alice", PASSWORD)
    await bob.register("bob", PASSWORD)
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    answers = [await send(http, guarded, alice, room, number) for number in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    _, headers, body = answers[-1]
    assert body["errcode"] == "M_LIMIT_EXCEEDED"
    assert 0 < body["retry_after_ms"] <= 2_000
    assert int(headers["Retry-After"]) == math.ceil(body["retry_after_ms"] / 1000)
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert (await send(http, guarded, bob, room, 5))[0] == 200


async def test_without_limits_nobody_is_held_up(
    http: aiohttp.ClientSession, server: Server, register: Register
) -> None:
    alice = await register("alice")
    room = await alice.create_room()

    answers = await asyncio.gather(*(send(http, server, alice, room, number) for number in range(100)))

    assert {status for status, _, _ in answers} == {200}


async def send(
    http: aiohttp.ClientSession, server: Server, person: Client, room: str, number: int
) -> tuple[int, Any, Any]:
    url = f"{server.client_url}{CLIENT_API}/rooms/{room}/send/m.room.message/{number}"
    headers = {"Authorization": f"Bearer {person.access_token}"}
    message = {"msgtype": "m.text", "body": str(number)}
    async with http.put(url, json=message, headers=headers) as reply:
        return reply.status, reply.headers, await reply.json()


def listed(reply: aiohttp.ClientResponse, header: str) -> set[str]:
    return {name.strip() for name in reply.headers[header].split(",")}
