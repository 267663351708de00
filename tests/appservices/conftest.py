"""Fixtures for tests of application services."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.appservices.bridge_app import Bridged, bridged


@pytest.fixture
async def bridge(sqlite_database: Database) -> AsyncIterator[Bridged]:
    """A server with a bridge that works."""
    async with bridged(sqlite_database) as running:
        yield running
