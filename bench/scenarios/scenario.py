"""What a scenario is: work prepared once on a server, then measured in rounds of the same size.

The amount of work is counted, never timed, so that both servers end with the same data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench import numbers
from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.scenarios.size import Size


@dataclass(frozen=True)
class Sample:
    """What one round did: so many operations, and each one's time, in seconds."""

    count: int
    latencies: Sequence[float] = ()
    #: For each operation when what follows from it was done too, from the same start.
    later: Sequence[float] = ()
    #: By how many bytes the database grew.
    grown: int | None = None
    #: By how many bytes the tables of state have grown, for each operation of all rounds so far.
    state_growth: float | None = None


@dataclass(frozen=True)
class Round:
    """A sample, and what the meter counted while it was taken, in seconds."""

    count: int
    seconds: float
    server_cpu: float
    database_cpu: float
    generator_cpu: float
    latencies: Sequence[float] = ()
    later: Sequence[float] = ()
    grown: int | None = None
    state_growth: float | None = None

    @property
    def generator_share(self) -> float:
        """How much of one core the generator used."""
        return self.generator_cpu / self.seconds


OneRound = Callable[[Meter], Awaitable[Sample]]


@dataclass(frozen=True)
class Reading:
    """One figure that is read from each round of a scenario; less is better unless it says otherwise."""

    key: str
    title: str
    unit: str
    of: Callable[[Round], float]
    more_is_better: bool = False


@dataclass(frozen=True)
class Scenario:
    """``prepare`` makes what a server needs and returns what one round is."""

    key: str
    prepare: Callable[[Prepared, Size], Awaitable[OneRound]]
    readings: tuple[Reading, ...]
    #: The first rounds are not measured.
    warm_up: int = 1
    #: For one that takes long: not more rounds than this.
    most_rounds: int = 1000


def throughput(key: str, title: str) -> Reading:
    """Operations a second."""
    return Reading(key, title, "/s", lambda one: one.count / one.seconds, more_is_better=True)


def latency(key: str, title: str, percent: int) -> Reading:
    """That percentile of the operations' times."""
    return Reading(key, title, "ms", lambda one: 1000 * numbers.percentile(one.latencies, percent))


def later(key: str, title: str, percent: int = 50) -> Reading:
    """That percentile of the times until what follows from an operation was done."""
    return Reading(key, title, "ms", lambda one: 1000 * numbers.percentile(one.later, percent))


def growth(key: str, title: str) -> Reading:
    """Bytes of the database an operation leaves behind."""
    return Reading(key, title, "bytes", lambda one: (one.grown or 0) / one.count)


def state_growth(key: str, title: str) -> Reading:
    """The part of it that says what the rooms' state is, since the first round, as it grows by leaps."""
    return Reading(key, title, "bytes", lambda one: one.state_growth or 0)


def as_round(sample: Sample, meter: Meter) -> Round:
    """What the two say together."""
    return Round(
        count=sample.count,
        seconds=meter.seconds,
        server_cpu=meter.server,
        database_cpu=meter.database,
        generator_cpu=meter.generator,
        latencies=sample.latencies,
        later=sample.later,
        grown=sample.grown,
        state_growth=sample.state_growth,
    )
