"""A server that people sync with."""

from __future__ import annotations

import pytest

from homeserver.storage.database import Database
from tests.sync.server import SyncServer


@pytest.fixture
async def server(sqlite_database: Database) -> SyncServer:
    return await SyncServer.open(sqlite_database)
