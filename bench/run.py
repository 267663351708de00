"""Runs the scenarios on both servers in turn and keeps what was measured."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.scenarios import Round, Sample, Scenario, Size
from tests.processes import Server


@dataclass
class Measured:
    """All rounds of one scenario on one server; ``cpu_seconds`` is the server's processor time in them."""

    samples: list[Sample] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Operations a second: the median of the rounds."""
        return statistics.median(sample.count / sample.seconds for sample in self.samples)

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the server's processor time for one operation."""
        return 1000 * self.cpu_seconds / sum(sample.count for sample in self.samples)

    def latency_ms(self, percent: int) -> float:
        """That percentile of all operations' times, in milliseconds."""
        return _percentile_ms([latency for sample in self.samples for latency in sample.latencies], percent)

    def later_ms(self, percent: int) -> float:
        """The same of the times until all was done that follows from the operations."""
        return _percentile_ms([latency for sample in self.samples for latency in sample.later], percent)


@dataclass
class Results:
    """``scenarios[key][i]`` and ``memory[i]`` belong to the ``i``-th server; memory is in bytes."""

    scenarios: dict[str, list[Measured]] = field(default_factory=dict)
    idle_memory: list[int] = field(default_factory=list)
    memory_after: list[int] = field(default_factory=list)


async def run(
    servers: Sequence[Server],
    scenarios: Sequence[Scenario],
    size: Size,
    tell: Callable[[str], None],
) -> Results:
    """Measure; the servers take turns round by round, so that a slow moment of the machine meets both."""
    results = Results(idle_memory=[server.resident_bytes() for server in servers])
    for scenario in scenarios:
        tell(f"{scenario.title}: preparing")
        rounds = await asyncio.gather(*(scenario.prepare(server, size) for server in servers))
        measured = [Measured() for _ in servers]
        for number in range(min(size.rounds, scenario.most_rounds)):
            for server, one_round, kept in zip(servers, rounds, measured, strict=True):
                tell(f"{scenario.title}: round {number + 1} of {size.rounds}, {server.software}")
                await _measure(server, one_round, kept)
        results.scenarios[scenario.key] = measured
    results.memory_after = [server.resident_bytes() for server in servers]
    return results


def _percentile_ms(seconds: Sequence[float], percent: int) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def _measure(server: Server, one_round: Round, kept: Measured) -> None:
    before = server.cpu_seconds()
    kept.samples.append(await one_round())
    kept.cpu_seconds += server.cpu_seconds() - before
