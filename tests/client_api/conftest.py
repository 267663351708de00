"""Fixtures for tests of the client API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server
from tests.client_api.live_room import LiveRoom
from tests.client_api.person import Person


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A running server where anybody may register."""
    async with account_server(sqlite_database) as running:
        yield running


@pytest.fixture
async def alice(server: AccountServer) -> Person:
    return await Person.arrives(server, "alice")


@pytest.fixture
async def bob(server: AccountServer) -> Person:
    return await Person.arrives(server, "bob")


@pytest.fixture
async def live_room(server: AccountServer) -> LiveRoom:
    """A room with Alice in it."""
    return await LiveRoom.found(server)
