"""Runs the scenarios on the servers in turn and keeps what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.generator.process import Generator, GeneratorFailed, generators
from bench.generator.site import Site
from bench.generator.usage import memory_bytes, tree
from bench.scenarios.scenario import Round, Scenario
from bench.scenarios.size import Size


@dataclass
class Results:
    """``rounds[key][i]`` are the rounds of a scenario on the ``i``-th server.

    ``idle_memory[i]`` and ``memory_after[i]`` are RSS and PSS of all its processes, in bytes.
    """

    rounds: dict[str, list[list[Round]]] = field(default_factory=dict)
    #: Of scenarios that came to nothing, why.
    failed: dict[str, str] = field(default_factory=dict)
    idle_memory: list[tuple[int, int]] = field(default_factory=list)
    memory_after: list[tuple[int, int]] = field(default_factory=list)


def run(
    sites: Sequence[Site], scenarios: Sequence[Scenario], size: Size, tell: Callable[[str], None]
) -> Results:
    """Measure; the servers take turns round by round, so that a slow moment of the machine meets both."""
    time.sleep(size.settling)
    results = Results(idle_memory=[memory_bytes(tree(site.pid)) for site in sites])
    with generators(sites, "bench.scenarios.programme", size) as started:
        for scenario in scenarios:
            tell(f"{scenario.key}: preparing")
            try:
                _prepare(started, scenario)
                results.rounds[scenario.key] = _rounds(started, scenario, size, tell)
            except GeneratorFailed as error:
                # Without a figure; what others took long to measure stays.
                results.failed[scenario.key] = str(error)
    results.memory_after = [memory_bytes(tree(site.pid)) for site in sites]
    return results


def _prepare(started: Sequence[Generator], scenario: Scenario) -> None:
    for generator in started:
        generator.order("prepare", scenario.key)
    failures = []
    for generator in started:
        try:
            generator.result()
        except GeneratorFailed as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _rounds(
    started: Sequence[Generator], scenario: Scenario, size: Size, tell: Callable[[str], None]
) -> list[list[Round]]:
    measured: list[list[Round]] = [[] for _ in started]
    rounds = min(size.rounds, scenario.most_rounds)
    for number in range(-scenario.warm_up, rounds):
        for generator, kept in zip(started, measured, strict=True):
            which = f"round {number + 1} of {rounds}" if number >= 0 else "warming up"
            tell(f"{scenario.key}: {which}, {generator.site.software}")
            one = generator.do("round", scenario.key)
            if number >= 0:
                kept.append(one)
    return measured
