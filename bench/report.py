"""The figures as a table for people and as JSON for later runs to compare with."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from bench.run import Measured, Results
from bench.scenarios import Scenario, Size
from tests.processes import Server


@dataclass(frozen=True)
class Figure:
    """One line: what was measured, on our server and on theirs; ``ratio`` above 1 means ours is better."""

    measure: str
    unit: str
    ours: float
    theirs: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better ours is."""
        better, worse = (self.ours, self.theirs) if self.more_is_better else (self.theirs, self.ours)
        return better / worse if worse else float("inf")


def figures(results: Results, scenarios: Sequence[Scenario], size: Size) -> list[Figure]:
    """Every line of the report, in order."""
    lines = []
    for scenario in scenarios:
        ours, theirs = results.scenarios[scenario.key]
        lines += _of_scenario(_title(scenario, size), scenario, ours, theirs)
    lines.append(_memory("Resident memory, idle", results.idle_memory))
    lines.append(_memory("Resident memory, after the same work", results.memory_after))
    return lines


def _title(scenario: Scenario, size: Size) -> str:
    match scenario.key:
        case "initial_sync":
            return f"{scenario.title} of {size.rooms} rooms"
        case "join":
            return f"{scenario.title} of {size.members} members"
        case _:
            return scenario.title


def _of_scenario(title: str, scenario: Scenario, ours: Measured, theirs: Measured) -> list[Figure]:
    percentiles = scenario.percentiles
    cpu = Figure("    processor time of the server for each", "ms", ours.cpu_ms, theirs.cpu_ms)
    if not percentiles:
        return [Figure(title, "/s", ours.per_second, theirs.per_second, more_is_better=True), cpu]
    lines = [
        Figure(f"{title}, p{percent}", "ms", ours.latency_ms(percent), theirs.latency_ms(percent))
        for percent in percentiles
    ]
    if scenario.later:
        lines.append(Figure(f"    {scenario.later}", "ms", ours.later_ms(50), theirs.later_ms(50)))
    return [*lines, cpu]


def _memory(title: str, resident: Sequence[int]) -> Figure:
    ours, theirs = (bytes_ / 2**20 for bytes_ in resident)
    return Figure(title, "MiB", ours, theirs)


def table(lines: Sequence[Figure], servers: Sequence[Server]) -> Table:
    """The lines for a terminal."""
    drawn = Table("Measure", title="The same work, side by side")
    for column in (*(server.software for server in servers), "unit", "times better"):
        drawn.add_column(column, justify="left" if column == "unit" else "right")
    for line in lines:
        colour = "green" if line.ratio >= 1 else "red"
        drawn.add_row(
            line.measure,
            _number(line.ours),
            _number(line.theirs),
            line.unit,
            f"[{colour}]{line.ratio:.2f}[/{colour}]",
        )
    return drawn


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_json(
    lines: Sequence[Figure], results: Results, servers: Sequence[Server], size: Size, versions: Sequence[str]
) -> dict[str, Any]:
    """Everything a later reader needs: the machine, the sizes, the figures, and each round."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "servers": [
            f"{server.software} {version}" for server, version in zip(servers, versions, strict=True)
        ],
        "size": asdict(size),
        "figures": [{**asdict(line), "ratio": line.ratio} for line in lines],
        "rounds": {
            key: [[asdict(sample) for sample in kept.samples] for kept in measured]
            for key, measured in results.scenarios.items()
        },
    }
