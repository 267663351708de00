"""Fixtures for tests of searching: a server that indexes, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.search.library import Library, library_over


@pytest.fixture
async def library(database: Database) -> AsyncIterator[Library]:
    async with library_over(database) as opened:
        yield opened
