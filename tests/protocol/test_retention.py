"""How long messages live: a room's wish within a server's bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.retention import Lifetimes, max_lifetime

DAY = 24 * 3600 * 1000
FREE = Lifetimes()


@pytest.mark.parametrize(
    ("wish", "server", "expected"),
    [
        (None, FREE, None),
        ({}, FREE, None),
        ({"max_lifetime": DAY}, FREE, DAY),
        (None, Lifetimes(default_max=DAY), DAY),
        ({}, Lifetimes(default_max=DAY), DAY),
        ({"max_lifetime": 2 * DAY}, Lifetimes(default_max=DAY), 2 * DAY),
        ({"max_lifetime": 1}, Lifetimes(allowed_min=DAY), DAY),
        ({"max_lifetime": 9 * DAY}, Lifetimes(allowed_max=DAY), DAY),
        ({"min_lifetime": 3 * DAY}, FREE, None),
        ({"min_lifetime": 3 * DAY}, Lifetimes(default_max=DAY), 3 * DAY),
        ({"min_lifetime": 3 * DAY}, Lifetimes(default_max=DAY, allowed_max=2 * DAY), 2 * DAY),
        ({"min_lifetime": DAY, "max_lifetime": 2 * DAY}, FREE, 2 * DAY),
        (None, Lifetimes(default_min=3 * DAY, default_max=2 * DAY), 3 * DAY),
        ({"max_lifetime": 0}, FREE, 0),
    ],
)
def test_a_room_is_heard_within_the_bounds(
    wish: dict[str, Any] | None, server: Lifetimes, expected: int | None
) -> None:
    assert max_lifetime(wish, server) == expected


@pytest.mark.parametrize(
    "nonsense",
    [
        {"max_lifetime": "soon"},
        {"max_lifetime": -1},
        {"max_lifetime": True},
        {"max_lifetime": 1.5},
        {"max_lifetime": None},
        {"max_lifetime": 2**53},
        {"max_lifetime": DAY, "min_lifetime": 2 * DAY},
        {"max_lifetime": DAY, "min_lifetime": []},
    ],
)
def test_nonsense_counts_for_nothing(nonsense: dict[str, Any]) -> None:
    assert max_lifetime(nonsense, Lifetimes(default_max=7 * DAY)) == 7 * DAY


@given(
    wished=st.integers(0, 2**53 - 1),
    low=st.integers(0, 50 * DAY),
    more=st.integers(0, 50 * DAY),
    other=st.none() | st.integers(0, 100 * DAY),
)
def test_no_wish_leads_out_of_what_is_allowed(wished: int, low: int, more: int, other: int | None) -> None:
    server = Lifetimes(default_max=other, allowed_min=low, allowed_max=low + more)
    found = max_lifetime({"max_lifetime": wished}, server)
    assert found is not None
    assert low <= found <= low + more
