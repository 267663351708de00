"""Fixtures for tests of the client API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A running server where anybody may register."""
    async with account_server(sqlite_database) as running:
        yield running
