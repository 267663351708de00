"""Rooms shared between two processes of our own server."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Pair
from tests.interop.stories import Stories
from tests.processes import Server

pytestmark = pytest.mark.xdist_group("interop-two-of-ours")


@pytest.fixture
def pair(ours: Server, another: Server) -> Pair:
    return Pair(ours, another)


class TestTwoOfOurs(Stories):
    """Every story between two Inglenooks."""
