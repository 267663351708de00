"""Rooms shared between our server and a real Synapse, in both directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.conftest import Pair
from tests.interop.inglenook import inglenook
from tests.interop.stories import Stories
from tests.interop.synapse import synapse, why_no_synapse
from tests.processes import Authority, Server

pytestmark = pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))

# Two groups, so that two workers share them; each starts a pair of servers of its own.
_WE_HOST = pytest.param("we host", marks=pytest.mark.xdist_group("interop-we-host"))
_SYNAPSE_HOSTS = pytest.param("Synapse hosts", marks=pytest.mark.xdist_group("interop-synapse-hosts"))


@pytest.fixture(scope="module")
def ours_and_theirs(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> tuple[Server, Server]:
    ours = inglenook(tmp_path_factory.mktemp("inglenook"), authority)
    theirs = synapse(tmp_path_factory.mktemp("synapse"), authority)
    running(ours, theirs)
    return ours, theirs


@pytest.fixture(params=[_WE_HOST, _SYNAPSE_HOSTS])
def pair(request: pytest.FixtureRequest, ours_and_theirs: tuple[Server, Server]) -> Pair:
    ours, theirs = ours_and_theirs
    return Pair(ours, theirs) if request.param == "we host" else Pair(theirs, ours)


class TestWithSynapse(Stories):
    """Every story, told in both directions."""
