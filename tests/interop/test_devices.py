"""Devices, their keys and messages between our server and a real Synapse, and between two of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.conftest import Pair
from tests.interop.device_stories import DeviceStories
from tests.interop.inglenook import inglenook
from tests.interop.synapse import synapse, why_no_synapse
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("interop-devices")


@pytest.fixture(scope="module")
def ours(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    server = inglenook(tmp_path_factory.mktemp("inglenook"), authority)
    running(server)
    return server


@pytest.fixture(scope="module")
def theirs(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    server = synapse(tmp_path_factory.mktemp("synapse"), authority)
    running(server)
    return server


@pytest.fixture(scope="module")
def another(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    server = inglenook(tmp_path_factory.mktemp("another"), authority)
    running(server)
    return server


@pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))
class TestWithSynapse(DeviceStories):
    """Every story, told in both directions."""

    @pytest.fixture(params=["we host", "Synapse hosts"])
    def pair(self, request: pytest.FixtureRequest, ours: Server, theirs: Server) -> Pair:
        return Pair(ours, theirs) if request.param == "we host" else Pair(theirs, ours)


class TestTwoOfOurs(DeviceStories):
    """Every story between two Inglenooks."""

    @pytest.fixture
    def pair(self, ours: Server, another: Server) -> Pair:
        return Pair(ours, another)
