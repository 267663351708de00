"""Medians, percentiles and ratios of rounds that took turns."""

from __future__ import annotations

import pytest

from bench.numbers import compare, percentile


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 6.0), (95, 10.0), (100, 10.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, expected: float) -> None:
    assert percentile([10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], percent) == expected


def test_less_time_is_times_better() -> None:
    compared = compare([1.0, 2.0, 4.0], [20.0, 20.0, 20.0], more_is_better=False)

    assert (compared.times, compared.least, compared.most) == (10.0, 5.0, 20.0)


def test_more_a_second_is_times_better() -> None:
    compared = compare([100.0, 300.0], [10.0, 10.0], more_is_better=True)

    assert (compared.times, compared.least, compared.most) == (20.0, 10.0, 30.0)


def test_nothing_used_is_endlessly_better() -> None:
    assert compare([0.0], [5.0], more_is_better=False).times == float("inf")


def test_only_rounds_that_took_turns_are_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([1.0, 2.0], [1.0], more_is_better=False)
