"""Rooms shared between two processes of our own server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.conftest import Pair
from tests.interop.inglenook import inglenook
from tests.interop.stories import Stories
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("interop-two-of-ours")


@pytest.fixture(scope="module")
def two_of_ours(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> tuple[Server, Server]:
    first = inglenook(tmp_path_factory.mktemp("first"), authority)
    second = inglenook(tmp_path_factory.mktemp("second"), authority)
    running(first, second)
    return first, second


@pytest.fixture
def pair(two_of_ours: tuple[Server, Server]) -> Pair:
    return Pair(*two_of_ours)


class TestTwoOfOurs(Stories):
    """Every story between two Inglenooks."""
