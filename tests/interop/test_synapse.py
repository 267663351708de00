"""Rooms shared between our server and a real Synapse, in both directions."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Pair, both_ways
from tests.interop.stories import Stories
from tests.interop.synapse import why_no_synapse
from tests.processes import Server

pytestmark = pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))


@pytest.fixture(params=both_ways("interop"))
def pair(request: pytest.FixtureRequest, ours: Server, theirs: Server) -> Pair:
    return Pair.told(request.param, ours, theirs)


class TestWithSynapse(Stories):
    """Every story, told in both directions."""
