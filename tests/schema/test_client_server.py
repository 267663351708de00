"""The specification's own OpenAPI files against a running server.

schemathesis invents requests for every operation; whatever is asked, the answer is never
a 5xx, keeps the schema that its status has in the specification, and no request leaves a
traceback in the log.  Where the specification is not at hand there is nothing to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server
from tests.schema.household import Household
from tests.schema.openapi import operations

_FILES = Path(__file__).parents[3] / "shared" / "spec" / "data" / "api" / "client-server"
_EXAMPLES = 12

pytestmark = [pytest.mark.skipif(not _FILES.exists(), reason=f"the specification is not at {_FILES}")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows no others, nor any page: what is invented would send it looking for them."""
    folder, authority = tmp_path_factory.mktemp("server"), Authority(tmp_path_factory.mktemp("authority"))
    alone = {"federation": {"enabled": False}, "url_previews": {"denied_urls": ["*"]}}
    server = inglenook(folder, authority, settings=alone)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def household(server: Server) -> Iterator[Household]:
    """New for each operation, whatever another did to a profile or a room."""
    with Household(server) as household:
        yield household


OPERATIONS = [
    pytest.param(operation, id=f"{operation.method.upper()} {operation.path}")
    for operation in operations(_FILES)
]


#: Operations for which the specification has a schema that no answer can keep, each with its reason.
CONTRADICTORY = {
    "GET /rooms/{roomId}/state/{eventType}/{stateKey}": "every event is an object, and just one may fit",
    "GET /voip/turnServer": "where there are no relays, nothing can be told of them",
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers_keep_their_schema(operation: Any, household: Household, server: Server) -> None:
    checks = [not_a_server_error]
    if f"{operation.method.upper()} {operation.path}" not in CONTRADICTORY:
        checks.append(response_schema_conformance)
    log_before = server.log.stat().st_size
    asked = []

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), real=st.randoms(use_true_random=False))
    def ask(case: Any, real: Any) -> None:
        household.make_real(case, real)
        response = case.call(base_url=household.base_url(operation), timeout=20)
        try:
            case.validate_response(response, checks=checks)
        except FailureGroup as failures:
            raise AssertionError("\n\n".join(str(one) for one in failures.exceptions)) from None
        asked.append(response.status_code)

    ask()
    assert asked
    with server.log.open("rb") as log:
        log.seek(log_before)
        assert b"Traceback" not in log.read()
