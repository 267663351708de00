"""Percentiles, medians, and how two series of rounds compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of them do not exceed; of a few, the nearest that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    return statistics.median(values)


@dataclass(frozen=True)
class Comparison:
    """How many times better ours is: of the medians, and at least and at most of a pair of rounds."""

    times: float
    least: float
    most: float


def compare(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> Comparison:
    """Compare rounds that took turns: the n-th of one belongs to the n-th of the other."""
    pairs = [_times(mine, other, more_is_better) for mine, other in zip(ours, theirs, strict=True)]
    times = _times(median(ours), median(theirs), more_is_better)
    return Comparison(times, min(pairs), max(pairs))


def _times(ours: float, theirs: float, more_is_better: bool) -> float:
    better, worse = (ours, theirs) if more_is_better else (theirs, ours)
    return better / worse if worse > 0 else float("inf")
