"""Draws results as PNG and SVG, without a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.figures import Figure

mpl.use("Agg")
# The same input gives the same file, byte for byte.
mpl.rcParams["svg.hashsalt"] = "bench"

_REACHED, _MISSED, _TARGET = "#2e7d32", "#c77700", "#222222"


def ratios(engine: str, lines: Sequence[Figure], folder: Path, name: str) -> list[Path]:
    """How many times better each figure with a target is; the files written."""
    kept = [line for line in lines if line.target and line.compared]
    drawing = Drawing(figsize=(9, 1.5 + 0.32 * len(kept)), layout="constrained")
    axes = drawing.subplots()
    _bars(axes, kept)
    # The first stands at the top.
    axes.invert_yaxis()
    drawing.suptitle(
        f"Times better than Synapse on {engine}: medians, least to most, and what is aimed at (|)"
    )
    return saved(drawing, folder, name)


def _bars(axes: Axes, lines: Sequence[Figure]) -> None:
    rows = range(len(lines))
    times = [line.compared.times if line.compared else 0 for line in lines]
    low = [line.compared.times - line.compared.least if line.compared else 0 for line in lines]
    high = [line.compared.most - line.compared.times if line.compared else 0 for line in lines]
    # Of the medians a ratio can lie outside of those of the pairs.
    spread = [[max(0, each) for each in low], [max(0, each) for each in high]]
    colours = [_REACHED if line.reached else _MISSED for line in lines]
    axes.barh(rows, times, color=colours, xerr=spread, error_kw={"lw": 1, "ecolor": "#555555"})
    axes.scatter([line.target or 0 for line in lines], rows, marker="|", s=160, color=_TARGET, zorder=3)
    axes.set_yticks(rows, [line.title.strip() for line in lines])
    axes.set_xscale("log")
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="#999999", lw=0.8)
    for row, value in zip(rows, times, strict=True):
        axes.annotate(f"{value:.1f}", (0.53, row), va="center", fontsize=8, color="white", weight="bold")


def saved(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    """Write a drawing as PNG and as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for file in files:
        metadata = {"Date": None} if file.suffix == ".svg" else {}
        drawing.savefig(file, dpi=120, metadata=metadata)
    return files
