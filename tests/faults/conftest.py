"""Three servers with a network between them that has faults, and a person on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.network import Network
from tests.interop.client import Client
from tests.interop.conftest import NewUser, new_user, pytest_runtest_makereport
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server, free_port, start_all, stop_all

__all__ = ["new_user", "pytest_runtest_makereport"]

#: Makes a server with its files in a folder; the last argument is the port others find it at.
MakeServer = Callable[[Path, Authority, int], Server]
MakeIslands = Callable[..., "Islands"]


@dataclass(frozen=True)
class Islands:
    """Servers and the network between them."""

    servers: tuple[Server, ...]
    network: Network


def ours(folder: Path, authority: Authority, public_port: int) -> Server:
    """One of our own."""
    return inglenook(folder, authority, public_port=public_port)


@pytest.fixture(scope="module")
def make_islands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeIslands]:
    """Starts servers on a network of their own; all is taken down after the module's tests."""
    made: list[Islands] = []

    def make(*kinds: MakeServer) -> Islands:
        authority = Authority(tmp_path_factory.mktemp("authority"))
        ports = [free_port() for _ in kinds]
        servers = tuple(
            kind(tmp_path_factory.mktemp("server"), authority, port)
            for kind, port in zip(kinds, ports, strict=True)
        )
        network = Network()
        made.append(Islands(servers, network))
        for server, port in zip(servers, ports, strict=True):
            network.attach(server, port)
        start_all(servers)
        return made[-1]

    yield make
    for islands in made:
        stop_all(islands.servers)
        islands.network.close()


@pytest.fixture(scope="module")
def islands(make_islands: MakeIslands) -> Islands:
    """Three of ours."""
    return make_islands(ours, ours, ours)


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every story starts and ends without faults."""
    yield
    for value in request.node.funcargs.values():
        if isinstance(value, Islands):
            value.network.heal()


@pytest.fixture
async def people(new_user: NewUser, islands: Islands) -> list[Client]:
    """Somebody on each server."""
    return [await new_user(server, f"person-{n}") for n, server in enumerate(islands.servers)]
