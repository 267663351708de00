"""From what was measured in rounds to the lines of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from bench import numbers
from bench.run import Results
from bench.scenarios.scenario import Reading, Round, Scenario
from bench.scenarios.size import Size
from bench.targets import TARGETS

#: A generator that uses more of a core than this may have kept a server waiting.
BUSY_SHARE = 0.7
#: And so may one whose work for an operation comes near the server's.
BUSY_BESIDE_SERVER = 0.5


@dataclass(frozen=True)
class Figure:
    """One line: on each server what was measured, and how many times better ours is.

    ``compared`` and ``target`` are absent where there is nothing to compare with or nothing to reach;
    ``doubts`` says in which respect the generator may have been what was measured.
    """

    key: str
    title: str
    unit: str
    values: tuple[float, ...]
    compared: numbers.Comparison | None
    target: float | None = None
    doubts: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None or self.compared is None:
            return None
        return self.compared.times >= self.target


def figures(results: Results, scenarios: Sequence[Scenario], size: Size) -> list[Figure]:
    """Every line of the report, in order."""
    lines = [_memory("memory_idle", "Resident memory, idle", results.idle_memory, 0)]
    for scenario in scenarios:
        if scenario.key in results.rounds:
            lines += _of_scenario(scenario, results.rounds[scenario.key], size)
    lines.append(_memory("memory_after", "Resident memory, after the work", results.memory_after, 0))
    lines.append(_memory("pss_after", "    the same, shared pages counted once", results.memory_after, 1))
    return lines


def _of_scenario(scenario: Scenario, rounds: Sequence[Sequence[Round]], size: Size) -> list[Figure]:
    words = asdict(size)
    doubts = _doubts(rounds)
    lines = [
        _figure(reading.key, reading.title.format(**words), reading, rounds, doubts)
        for reading in scenario.readings
    ]
    cpu = Reading("", "", "ms", lambda one: 1000 * one.server_cpu / one.count)
    lines.append(_figure(f"{scenario.key}_cpu", "    processor time of the server for each", cpu, rounds))
    if any(one.database_cpu for of_server in rounds for one in of_server):
        cpu = Reading("", "", "ms", lambda one: 1000 * one.database_cpu / one.count)
        title = "    processor time of PostgreSQL for each"
        lines.append(_figure(f"{scenario.key}_database_cpu", title, cpu, rounds))
    return lines


def _figure(
    key: str, title: str, reading: Reading, rounds: Sequence[Sequence[Round]], doubts: str = ""
) -> Figure:
    return _compared(
        key,
        title,
        reading.unit,
        [list(map(reading.of, of_server)) for of_server in rounds],
        more_is_better=reading.more_is_better,
        doubts=doubts,
    )


def _compared(
    key: str,
    title: str,
    unit: str,
    series: Sequence[Sequence[float]],
    *,
    more_is_better: bool = False,
    doubts: str = "",
) -> Figure:
    compared = None
    if len(series) == 2:
        compared = numbers.compare(series[0], series[1], more_is_better=more_is_better)
    medians = tuple(map(numbers.median, series))
    return Figure(key, title, unit, medians, compared, TARGETS.get(key), doubts)


def _memory(key: str, title: str, memory: Sequence[tuple[int, int]], which: int) -> Figure:
    return _compared(key, title, "MiB", [[each[which] / 2**20] for each in memory])


def _doubts(rounds: Sequence[Sequence[Round]]) -> str:
    everywhere = [one for of_server in rounds for one in of_server]
    said: list[tuple[Callable[[Round], bool], str]] = [
        (lambda one: one.generator_share > BUSY_SHARE, f"the generator used over {BUSY_SHARE:.0%} of a core"),
        (
            lambda one: one.generator_cpu > BUSY_BESIDE_SERVER * (one.server_cpu + one.database_cpu),
            f"the generator's processor time was over {BUSY_BESIDE_SERVER:.0%} of the server's",
        ),
    ]
    return "; ".join(
        f"{what} in {count} of {len(everywhere)} rounds"
        for applies, what in said
        if (count := sum(map(applies, everywhere)))
    )
