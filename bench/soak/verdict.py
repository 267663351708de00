"""Whether memory and latency stay as they are: the middle third of a soak against the last.

And whether the event loop was never held up for longer than it may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.numbers import median, percentile
from bench.soak.stalls import ALLOWED, Stalls

#: By how much the last third may exceed the middle one.  The first is for what fills up once.
MEMORY_FLAT, LATENCY_FLAT = 1.05, 1.5
#: Of what is done rarely there are too few to say much of the slowest.
_ENOUGH = 200


@dataclass(frozen=True)
class Interval:
    """What was measured in a few seconds; ``latencies`` in seconds by what was done, memory in bytes."""

    at: float
    memory: int
    cpu_share: float
    latencies: dict[str, list[float]] = field(default_factory=dict)
    #: What was due and nobody was free for.
    skipped: int = 0
    #: How the event loop is doing, where the server tells.
    stalls: Stalls | None = None


@dataclass(frozen=True)
class Verdict:
    """One thing that shall stay as it is."""

    what: str
    unit: str
    middle: float
    last: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it did."""
        return self.last <= self.middle * self.allowed


def verdicts(intervals: Sequence[Interval]) -> list[Verdict]:
    """Of memory, of every latency that there is enough of, and of what held the event loop up."""
    third = len(intervals) // 3
    middle, last = intervals[third : 2 * third], intervals[2 * third :]
    memory = [median([each.memory / 2**20 for each in part]) for part in (middle, last)]
    found = [Verdict("resident memory", "MiB", memory[0], memory[1], MEMORY_FLAT)]
    for what in sorted({what for each in intervals for what in each.latencies}):
        times = [
            [1000 * one for each in part for one in each.latencies.get(what, [])] for part in (middle, last)
        ]
        for percent in (50, 95):
            if min(map(len, times)) >= (_ENOUGH if percent > 50 else 10):
                values = [percentile(part, percent) for part in times]
                found.append(Verdict(f"{what}, p{percent}", "ms", values[0], values[1], LATENCY_FLAT))
    if told := [each.stalls for each in intervals if each.stalls]:
        held = max(each.held_ms for each in told)
        found.append(Verdict("event loop held up, at most and longest", "ms", 1000 * ALLOWED, held, 1.0))
    return found
