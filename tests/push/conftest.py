"""A server that pushes, and a gateway to push to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.push.gateway import Gateway, push_gateway
from tests.push.server import PushServer, push_server


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with push_gateway() as running:
        yield running


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[PushServer]:
    async with push_server(sqlite_database) as running:
        yield running
