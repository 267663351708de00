"""Devices, their keys and messages between our server and a real Synapse, and between two of ours."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Pair
from tests.interop.device_stories import DeviceStories
from tests.interop.synapse import why_no_synapse
from tests.processes import Server

pytestmark = pytest.mark.xdist_group("interop-devices")


@pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))
class TestWithSynapse(DeviceStories):
    """Every story, told in both directions."""

    @pytest.fixture(params=["we host", "Synapse hosts"])
    def pair(self, request: pytest.FixtureRequest, ours: Server, theirs: Server) -> Pair:
        return Pair.told(request.param, ours, theirs)


class TestTwoOfOurs(DeviceStories):
    """Every story between two Inglenooks."""

    @pytest.fixture
    def pair(self, ours: Server, another: Server) -> Pair:
        return Pair(ours, another)
