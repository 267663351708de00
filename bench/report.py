"""The figures as a table for people and as JSON for later runs to compare with."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from bench.figures import Figure
from bench.run import Results
from bench.scenarios.size import Size


def table(lines: Sequence[Figure], software: Sequence[str], engine: str, size: Size) -> Table:
    """The lines for a terminal."""
    drawn = Table("Measure", title=f"The same work, side by side, on {engine} ({size.name} size)")
    for column in (*software, "unit", "times better", "at least – most", "target", ""):
        drawn.add_column(column, justify="left" if column == "unit" else "right")
    for line in lines:
        drawn.add_row(line.title, *map(_number, line.values), line.unit, *_comparison(line))
    return drawn


def _comparison(line: Figure) -> tuple[str, ...]:
    if line.compared is None:
        return ()
    compared = line.compared
    colour = "green" if compared.times >= 1 else "red"
    spread = f"{compared.least:.1f} – {compared.most:.1f}"
    times = f"[{colour}]{compared.times:.1f}[/{colour}]"
    if line.reached is None:
        return times, spread
    verdict = "[green]reached[/green]" if line.reached else "[red]missed[/red]"
    return times, spread, f"{line.target:g}", verdict


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def warnings(lines: Sequence[Figure]) -> list[str]:
    """What to think of before a figure is believed."""
    return [f"{line.title.strip()}: {line.doubts}" for line in lines if line.doubts]


def as_json(
    engine: str, lines: Sequence[Figure], results: Results, software: Sequence[str], size: Size
) -> dict[str, Any]:
    """Everything a later reader needs: the machine, the sizes, the figures and each round."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "servers": list(software),
        "engine": engine,
        "size": asdict(size),
        "figures": [{**asdict(line), "reached": line.reached} for line in lines],
        **asdict(results),
    }
