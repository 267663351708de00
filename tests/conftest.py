"""Fixtures for tests of any part: databases on both engines."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homeserver.storage import open_database
from homeserver.storage.database import Database
from tests import databases


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        databases.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        databases.end_run()


@pytest.fixture(scope="session")
def postgres_cluster() -> databases.Cluster:
    """The test run's own PostgreSQL; skips where there is none to run."""
    try:
        return databases.shared_cluster()
    except databases.NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def postgres_template(postgres_cluster: databases.Cluster) -> str:
    return databases.migrated_template(postgres_cluster)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return databases.migrated_file(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of a storage engine; a test that uses it runs once on each."""
    return str(request.param)


@pytest.fixture
async def empty_database_url(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """The URL of a new database without any schema, on each engine."""
    if engine == "sqlite":
        yield f"sqlite://{tmp_path}/empty.db"
        return
    async with databases.fresh_postgres(request.getfixturevalue("postgres_cluster")) as url:
        yield url


@pytest.fixture
async def database_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a new database with the program's schema, on each engine."""
    if engine == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "inglenook.db")
        yield f"sqlite://{path}"
        return
    cluster, template = (request.getfixturevalue(name) for name in ("postgres_cluster", "postgres_template"))
    async with databases.fresh_postgres(cluster, template) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the program's schema, on each engine."""
    opened = await open_database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """An open SQLite database with the program's schema, for tests that are not about storage."""
    opened = await open_database(str(shutil.copy(sqlite_template, tmp_path / "inglenook.db")))
    yield opened
    await opened.close()
