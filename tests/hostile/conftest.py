"""A server under attack, and the one that attacks it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from homeserver.storage import open_database
from tests.hostile.harm import Scene
from tests.hostile.peer import HostilePeer
from tests.remote import Network, Server

S = TypeVar("S", bound=Server)

#: Starts a server of a class by its name.
Start: TypeAlias = Callable[..., Awaitable[Any]]
#: Makes the scene of an attack, in a room of some version.
Set: TypeAlias = Callable[..., Awaitable[Scene]]

VERSIONS = ["1", "5", "11", "12"]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def start(network: Network, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers on one network, each with a database of its own."""
    databases = []

    async def start_server(name: str, kind: type[S], **options: Any) -> S:
        path = shutil.copy(sqlite_template, tmp_path / f"{name}.db")
        databases.append(await open_database(str(path)))
        server = await kind.open(network, name, databases[-1], **options)
        assert isinstance(server, kind)
        return server

    yield start_server
    for server in network.servers.values():
        await server.close()
    for database in databases:
        await database.close()


@pytest.fixture
async def here(start: Start) -> Server:
    server: Server = await start("here.example", Server)
    return server


@pytest.fixture
async def evil(start: Start) -> HostilePeer:
    peer: HostilePeer = await start("evil.example", HostilePeer)
    return peer


@pytest.fixture
def set_scene(here: Server, evil: HostilePeer) -> Set:
    """Makes alice's rooms, one of them with mallory in it."""

    async def set_scene(version: str = "11", **fields: Any) -> Scene:
        alice, mallory = here.user("alice"), evil.user("mallory")
        room_id = await here.public_room(alice, version=version, **fields)
        other_id = await here.private_room(alice, version=version)
        await evil.join(mallory, room_id, here)
        await here.say(room_id, alice, "welcome")
        await here.network.settle()
        return Scene(here=here, evil=evil, alice=alice, mallory=mallory, room_id=room_id, other_id=other_id)

    return set_scene


@pytest.fixture
async def scene(set_scene: Set) -> Scene:
    """The scene in a room of version 11."""
    return await set_scene()
