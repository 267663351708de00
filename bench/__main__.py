"""``python -m bench``: our server and Synapse side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.growth import report as curves
from bench.growth.axes import AXES
from bench.growth.run import along
from bench.pages import PAGES, ROOT, rewrite
from bench.profiling import report as profiles
from bench.profiling import run as profiling
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import Scenario
from bench.scenarios.size import FULL, QUICK
from bench.servers import ENGINES, SOFTWARE
from bench.soak import report as soaked
from bench.soak import run as soaking
from bench.soak.verdict import verdicts
from bench.suite import Suite
from tests.interop.synapse import why_no_synapse

_RESULTS = Path(__file__).parent / "results"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def suite(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option(help="A little of everything, in a few minutes.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="sqlite or postgres; both if not said.")] = None,
    alone: Annotated[bool, typer.Option(help="Our server without Synapse beside it.")] = False,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the plots.")] = _RESULTS,
) -> None:
    """Measure our server and Synapse with the same work and print how many times better ours is."""
    if context.invoked_subcommand:
        return
    console, scenarios = _console(), _scenarios(only)
    if not alone and (reason := why_no_synapse()):
        console.print(reason)
        raise typer.Exit(1)
    if unknown := set(engine or []) - set(ENGINES):
        raise typer.BadParameter(f"no engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    size = QUICK if quick else FULL
    right = Suite(
        scenarios=scenarios,
        size=size,
        engines=engine or ENGINES,
        output=output,
        name="some" if only or alone else size.name,
        alone=alone,
    ).measure(console)
    raise typer.Exit(0 if right else 1)


@app.command()
def growth(
    axis: Annotated[list[str] | None, typer.Option(help="Only this axis; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="Only the first points.")] = False,
    alone: Annotated[bool, typer.Option(help="Our server without Synapse beside it.")] = False,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the plots.")] = _RESULTS,
) -> None:
    """Measure how costs grow with members, rooms, events, waiting clients and destinations."""
    if unknown := set(axis or []) - {each.key for each in AXES}:
        raise typer.BadParameter(f"no axis {', '.join(unknown)}; there are {', '.join(a.key for a in AXES)}")
    console = _console()
    output.mkdir(parents=True, exist_ok=True)
    for each in AXES:
        if axis and each.key not in axis:
            continue
        points = each.quick_points if quick else each.points
        with console.status("starting") as status:
            curve = along(each, points, SOFTWARE[:1] if alone else SOFTWARE, status.update)
        console.print(curves.table(curve))
        for line in curves.waiting_lines(curve):
            console.print(line)
        file = output / f"growth-{each.key}.json"
        file.write_text(json.dumps(curves.as_json(curve), indent=1) + "\n")
        for written in (file, *curves.plot(curve, output)):
            console.print(f"written to {written}")


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    engine: Annotated[str, typer.Option(help="sqlite or postgres.")] = "sqlite",
    server: Annotated[str, typer.Option(help="inglenook or synapse.")] = "inglenook",
    times: Annotated[float, typer.Option(help="How many times the usual load.")] = 1.0,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the plot.")] = _RESULTS,
) -> None:
    """Have a server do everyday work for long, and see whether memory and latency stay as they are."""
    console = _console()
    every = min(10.0, minutes * 60 / 30)
    with console.status("starting") as status:
        intervals = soaking.soak(
            server, engine, seconds=minutes * 60, every=every, times=times, tell=status.update
        )
    found = verdicts(intervals)
    console.print(soaked.table(found))
    if line := soaked.stall_line(intervals):
        console.print(line)
    if skipped := sum(each.skipped for each in intervals):
        console.print(f"[yellow]Careful:[/yellow] {skipped} things were not done, as the server was behind")
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"soak-{server}-{engine}.json"
    file.write_text(json.dumps(soaked.as_json(server, engine, intervals, found), indent=1) + "\n")
    for written in (file, *soaked.plot(server, engine, intervals, output)):
        console.print(f"written to {written}")


@app.command()
def profile(
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    engine: Annotated[str, typer.Option(help="sqlite or postgres.")] = "sqlite",
    quick: Annotated[bool, typer.Option(help="Small rounds.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to look at each.")] = 12.0,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the folded stacks.")] = _RESULTS,
) -> None:
    """See where the processor time of our server goes, with py-spy."""
    console = _console()
    output.mkdir(parents=True, exist_ok=True)
    found = []
    for scenario in _scenarios(only):
        stacks = output / f"profile-{engine}-{scenario.key}.txt"
        with console.status("starting") as status:
            size = QUICK if quick else FULL
            one = profiling.profile(scenario, engine, size, seconds=seconds, tell=status.update, kept=stacks)
        console.print(profiles.table(one))
        console.print(f"written to {stacks}")
        found.append(profiles.as_json(one))
    file = output / f"profile-{engine}.json"
    file.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"written to {file}")


@app.command()
def pages() -> None:
    """Write the kept results into the documentation."""
    console = _console()
    for page in PAGES:
        for missing in rewrite(ROOT / page, _RESULTS):
            console.print(f"{page}: nothing measured for {missing}")


def _scenarios(only: list[str] | None) -> list[Scenario]:
    by_key = {scenario.key: scenario for scenario in SCENARIOS}
    if unknown := set(only or []) - by_key.keys():
        raise typer.BadParameter(f"no scenario {', '.join(unknown)}; there are {', '.join(by_key)}")
    return [scenario for key, scenario in by_key.items() if not only or key in only]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)


if __name__ == "__main__":
    app()
