"""A soak as a table of verdicts, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing
from rich.table import Table

from bench.numbers import percentile
from bench.plots import saved
from bench.soak.stalls import ALLOWED
from bench.soak.verdict import Interval, Verdict

_DRAWN = ("send", "heard by all in the room", "older messages", "first sync")


def table(found: Sequence[Verdict]) -> Table:
    """One line for each thing that shall stay as it is."""
    drawn = Table("Measure", "unit", title="The middle third and the last")
    for column in ("middle", "last", "times", "at most", ""):
        drawn.add_column(column, justify="right")
    for each in found:
        said = "[green]flat[/green]" if each.flat else "[red]grows[/red]"
        ratio = each.last / each.middle if each.middle else 0.0
        drawn.add_row(
            each.what,
            each.unit,
            f"{each.middle:.1f}",
            f"{each.last:.1f}",
            f"{ratio:.2f}",
            f"{each.allowed}",
            said,
        )
    return drawn


def stall_line(intervals: Sequence[Interval]) -> str:
    """How often and how long the event loop was held up; empty where the server does not tell."""
    told = [each.stalls for each in intervals if each.stalls]
    if not told:
        return ""
    turns, late = told[-1].turns - told[0].turns, told[-1].late - told[0].late
    worst = max(each.worst_ms for each in told)
    return (
        f"the event loop was held up for more than {1000 * ALLOWED:g} ms in {late:,} of {turns:,} looks, "
        f"{worst:.0f} ms at most (what waits for a processor is counted too)"
    )


def as_json(
    software: str, engine: str, intervals: Sequence[Interval], found: Sequence[Verdict]
) -> dict[str, Any]:
    """The verdicts, and by interval memory and percentiles."""
    return {
        "server": software,
        "engine": engine,
        "verdicts": [{**asdict(each), "flat": each.flat} for each in found],
        "intervals": [
            {
                "at": each.at,
                "memory": each.memory,
                "cpu_share": each.cpu_share,
                "skipped": each.skipped,
                "stalls": each.stalls and asdict(each.stalls),
                "latencies_ms": {
                    what: {
                        "count": len(times),
                        **{f"p{percent}": 1000 * percentile(times, percent) for percent in (50, 95, 100)},
                    }
                    for what, times in each.latencies.items()
                },
            }
            for each in intervals
        ],
    }


def plot(software: str, engine: str, intervals: Sequence[Interval], folder: Path) -> list[Path]:
    """Memory, processor time and latency over time; the files written."""
    drawing = Drawing(figsize=(10, 10), layout="constrained")
    memory, cpu, stalled, latency = drawing.subplots(4, 1, sharex=True)
    minutes = [each.at / 60 for each in intervals]
    memory.plot(minutes, [each.memory / 2**20 for each in intervals])
    memory.set_ylabel("resident memory (MiB)")
    memory.set_ylim(bottom=0)
    cpu.plot(minutes, [100 * each.cpu_share for each in intervals])
    cpu.set_ylabel("processor time (% of a core)")
    cpu.set_ylim(bottom=0)
    told = [(each.at / 60, each.stalls.worst_ms) for each in intervals if each.stalls]
    stalled.plot([at for at, _ in told], [worst for _, worst in told])
    stalled.axhline(1000 * ALLOWED, color="#999999", lw=0.8)
    stalled.set_ylabel("event loop held up, most (ms)")
    stalled.set_ylim(bottom=0)
    for what in _DRAWN:
        for percent, style in ((50, "-"), (95, ":")):
            drawn = [(each.at / 60, each.latencies[what]) for each in intervals if what in each.latencies]
            values = [1000 * percentile(times, percent) for _, times in drawn]
            latency.plot([at for at, _ in drawn], values, style, label=f"{what}, p{percent}")
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter("{x:g}")
    latency.set_ylabel("latency (ms)")
    latency.set_xlabel("minutes")
    latency.legend(fontsize=7, ncols=2)
    for axes in (memory, cpu, stalled, latency):
        axes.grid(visible=True, color="#dddddd", lw=0.6)
    drawing.suptitle(f"Mixed load over time: {software} on {engine}")
    return saved(drawing, folder, f"soak-{software}-{engine}")
