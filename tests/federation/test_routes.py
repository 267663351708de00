"""The table of the server-server API against the specification's list."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path
from unittest.mock import Mock

import pytest

from federation.routes import routes
from homeserver.web import Access, Route

ENDPOINTS = Path(__file__).resolve().parents[3] / "shared" / "spec" / "endpoints.tsv"

#: Version 1 of endpoints that the list has in version 2 only, and paths that name a key.
OLD_FORMS = {
    ("PUT", f"/_matrix/federation/v1/{name}/{{roomId}}/{{eventId}}") for name in ("send_join", "send_leave")
}
NAMING_A_KEY = {("GET", f"/_matrix/key/v2/{path}/{{keyId}}") for path in ("server", "query/{serverName}")}


@pytest.fixture
def table() -> list[Route]:
    return routes(**{part: Mock() for part in inspect.signature(routes).parameters})


@pytest.fixture
def listed() -> dict[tuple[str, str], str]:
    """Method and path of each endpoint for servers, and whether it wants a signature."""
    if not ENDPOINTS.exists():
        pytest.skip("needs the specification's list of endpoints beside the project")
    with ENDPOINTS.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {(row["method"], row["path"]): row["auth"] for row in rows if row["api"] == "server-server"}


def test_every_route_is_the_specifications(table: list[Route], listed: dict[tuple[str, str], str]) -> None:
    served = {(route.method, route.path) for route in table}
    assert len(served) == len(table)
    assert served - listed.keys() == OLD_FORMS | NAMING_A_KEY


def test_who_may_call_is_as_specified(table: list[Route], listed: dict[tuple[str, str], str]) -> None:
    for route in table:
        if (route.method, route.path) in NAMING_A_KEY:
            continue
        signed = listed.get((route.method, route.path), "auth") == "auth"
        assert (route.access is Access.SERVER) == signed, route.path


def test_every_route_has_a_limit(table: list[Route]) -> None:
    assert {route.limit for route in table} == {"federation"}
