"""Servers for tests of federation."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme

from federation.keyring import Keyring
from federation.published_keys import VerifyKey, usable
from homeserver.egress import tls_context
from homeserver.storage import open_database
from tests.federation.sending import PEER, Recorded, Story, start_sender
from tests.remote import Network, Server


async def keys_of(
    keyring: Keyring, server_name: str, key_ids: Collection[str], at_ms: int
) -> dict[str, VerifyKey]:
    """Those of a server's keys that a keyring finds and that cover what was signed at a time."""
    known = await keyring.keys_for_all({server_name: dict.fromkeys(key_ids, at_ms)})
    return usable(known[server_name], key_ids, at_ms)


#: Starts a server by its name.
StartServer: TypeAlias = Callable[..., Awaitable[Server]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Trusts what the authority has signed."""
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return tls_context(ca_file)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def start(network: Network, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers on one network, each with a database of its own."""
    databases = []

    async def start_server(name: str, **options: Any) -> Server:
        path = shutil.copy(sqlite_template, tmp_path / f"{name}.db")
        databases.append(await open_database(str(path)))
        return await Server.open(network, name, databases[-1], **options)

    yield start_server
    for server in network.servers.values():
        await server.close()
    for database in databases:
        await database.close()


@pytest.fixture
async def here(start: StartServer) -> Server:
    return await start("here.example")


@pytest.fixture
async def there(start: StartServer) -> Server:
    return await start("there.example")


@pytest.fixture
async def story(start: StartServer) -> AsyncIterator[Story]:
    server, peer_server = await start("here.example"), await start(PEER)
    alice = server.user("alice")
    room_id = await server.public_room(alice)
    await peer_server.join(peer_server.user("bob"), room_id, server)
    await server.network.settle()
    server.notifier.listeners.clear()
    peer = Recorded()
    story = Story(server, room_id, alice, peer, await start_sender(server, peer))
    yield story
    await story.end()
