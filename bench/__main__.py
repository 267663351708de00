"""``python -m bench``: start both servers, measure, print, keep the results."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.figures import Figure, figures
from bench.report import as_json, table, warnings
from bench.run import Results, run
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import Scenario
from bench.scenarios.size import FULL, QUICK, Size
from bench.servers import ENGINES, SOFTWARE, running
from tests.interop.synapse import synapse_version, why_no_synapse

_RESULTS = Path(__file__).parent / "results"


def main(
    quick: Annotated[bool, typer.Option(help="A little of everything, in a few minutes.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="sqlite or postgres; both if not said.")] = None,
    alone: Annotated[bool, typer.Option(help="Our server alone, without Synapse beside it.")] = False,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the plots.")] = _RESULTS,
) -> None:
    """Measure our server and Synapse with the same work and print how many times better ours is."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if not alone and (reason := why_no_synapse()):
        console.print(reason)
        raise typer.Exit(1)
    scenarios = [scenario for scenario in SCENARIOS if not only or scenario.key in only]
    if not scenarios:
        raise typer.BadParameter(f"scenarios: {', '.join(scenario.key for scenario in SCENARIOS)}")
    size = QUICK if quick else FULL
    software = SOFTWARE[:1] if alone else SOFTWARE
    runs: dict[str, tuple[list[Figure], Results]] = {}
    for each in engine or ENGINES:
        with console.status("starting") as status:
            results = _measured(each, software, scenarios, size, status.update)
        lines = figures(results, scenarios, size)
        runs[each] = lines, results
        console.print(table(lines, software, each, size))
        for warning in warnings(lines):
            console.print(f"[yellow]Careful:[/yellow] {warning}")
    output.mkdir(parents=True, exist_ok=True)
    written = output / f"{'some' if only or alone else size.name}.json"
    versions = [f"{each} {_version_of(each)}" for each in software]
    written.write_text(json.dumps(as_json(runs, versions, size), indent=1) + "\n")
    console.print(f"written to {written}")


def _measured(
    engine: str,
    software: Sequence[str],
    scenarios: Sequence[Scenario],
    size: Size,
    tell: Callable[[str], None],
) -> Results:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running(Path(folder), engine, software) as servers,
    ):
        try:
            return run([site for _, site in servers], scenarios, size, tell)
        except BaseException:
            for server, _ in servers:
                print(server.log_tail(20), file=sys.stderr)
            raise


def _version_of(software: str) -> str:
    return str(synapse_version()) if software == "synapse" else importlib.metadata.version("inglenook")


if __name__ == "__main__":
    typer.run(main)
