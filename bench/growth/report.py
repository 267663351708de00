"""The curves as a table, with a verdict for each that shall be flat, as JSON and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from rich.table import Table

from bench.growth.axes import FLAT, FLAT_OPERATIONS, IDLE_CLIENTS, IDLE_MIB, OPERATIONS
from bench.growth.run import Cost, Curve
from bench.plots import saved

_COLOURS = ("#1f77b4", "#d62728", "#2e7d32", "#c77700", "#7b4fa3", "#555555")


def steepness(costs: Sequence[Cost]) -> float:
    """How many times the first point's processor time the dearest point takes.

    By the least of each point's rounds: whatever else the machine does only adds to it.
    """
    return max(cost.least_cpu_ms for cost in costs) / costs[0].least_cpu_ms


def verdict(operation: str, costs: Sequence[Cost]) -> str:
    """Whether an operation that shall be flat is; empty for the others."""
    if operation not in FLAT_OPERATIONS or len(costs) < 2:
        return ""
    return "FLAT" if steepness(costs) <= FLAT else "NOT FLAT"


def table(curve: Curve) -> Table:
    """Processor time and latency of every operation at every point."""
    drawn = Table(
        title=f"Growth with {curve.axis.title}: processor time, least – most (latency), ms",
        title_justify="left",
    )
    drawn.add_column("operation")
    drawn.add_column("server")
    points = [cost.point for costs in curve.costs.values() for cost in costs["inglenook"]]
    for point in sorted(set(points)):
        drawn.add_column(f"{point:,}", justify="right")
    drawn.add_column(f"dearest / first (flat: {FLAT})", justify="right")
    for operation, of_software in curve.costs.items():
        for software, costs in of_software.items():
            cells = [_cell(cost) for cost in costs]
            cells += [""] * (len(set(points)) - len(costs))
            said = f"{steepness(costs):.2f} {verdict(operation, costs)}"
            drawn.add_row(OPERATIONS[operation], software, *cells, said)
    return drawn


def _cell(cost: Cost) -> str:
    spread = f"{_figures(cost.least_cpu_ms)} – {_figures(cost.most_cpu_ms)}"
    return f"{_figures(cost.cpu_ms)}, {spread} ({_figures(cost.latency_ms)})"


def _figures(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def waiting_lines(curve: Curve) -> list[str]:
    """What the clients that wait let the servers grow by."""
    lines = []
    for software, waited in curve.waiting.items():
        for clients, grown in waited:
            line = f"{clients:,} idle long polls: {software} grew by {grown / 2**20:.1f} MiB"
            if software == "inglenook" and clients >= IDLE_CLIENTS:
                reached = "reached" if grown < IDLE_MIB * 2**20 else "missed"
                line += f" (under {IDLE_MIB} MiB: {reached})"
            lines.append(line)
    return lines


def as_json(curve: Curve) -> dict[str, Any]:
    """Everything that was measured along an axis, and the verdicts on our server."""
    verdicts = {
        operation: {
            "dearest_by_first": steepness(costs["inglenook"]),
            "verdict": verdict(operation, costs["inglenook"]),
        }
        for operation, costs in curve.costs.items()
    }
    return {**asdict(curve), "verdicts": verdicts}


def plot(curve: Curve, folder: Path) -> list[Path]:
    """Latency and processor time of every operation along the axis; the files written."""
    drawing = Drawing(figsize=(11, 4.5), layout="constrained")
    left, right = drawing.subplots(1, 2)
    _lines(left, curve, "processor time of the server (ms)", lambda cost: cost.cpu_ms)
    _lines(right, curve, "latency, median (ms)", lambda cost: cost.latency_ms)
    right.legend(fontsize=8)
    drawing.suptitle(f"Growth with {curve.axis.title} (dashed: Synapse)")
    return saved(drawing, folder, f"growth-{curve.axis.key}")


def _lines(axes: Axes, curve: Curve, label: str, value: Any) -> None:
    for (operation, of_software), colour in zip(curve.costs.items(), _COLOURS, strict=False):
        for software, costs in of_software.items():
            ours = software == "inglenook"
            axes.plot(
                [cost.point for cost in costs],
                [value(cost) for cost in costs],
                "-o" if ours else "--x",
                color=colour,
                lw=1.6 if ours else 0.9,
                ms=4,
                label=OPERATIONS[operation] if ours else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(curve.axis.title)
    axes.set_ylabel(label)
    axes.grid(visible=True, which="major", color="#dddddd", lw=0.6)
