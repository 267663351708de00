"""``python -m bench``: start both servers, measure, print, keep the results."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from bench.report import as_json, figures, table
from bench.run import run
from bench.scenarios import FULL, QUICK, SCENARIOS
from tests.interop.inglenook import inglenook
from tests.interop.synapse import synapse, synapse_version, why_no_synapse
from tests.processes import Authority, Server, start_all, stop_all

_RESULTS = Path(__file__).parent / "results" / "latest.json"
# Long enough for what a server does once at its start to be over before its idle memory is read.
_SETTLING_SECONDS = 3.0


def main(
    quick: Annotated[bool, typer.Option(help="A short run, to see that it works.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = _RESULTS,
) -> None:
    """Measure our server and Synapse with the same work and print how many times better ours is."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    if reason := why_no_synapse():
        console.print(reason)
        raise typer.Exit(1)
    scenarios = [scenario for scenario in SCENARIOS if not only or scenario.key in only]
    if not scenarios:
        raise typer.BadParameter(f"scenarios: {', '.join(scenario.key for scenario in SCENARIOS)}")
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, console.status("starting") as status:
        servers = _configured(Path(folder))
        try:
            start_all(servers)
            time.sleep(_SETTLING_SECONDS)
            results = uvloop.run(run(servers, scenarios, size, status.update))
        except BaseException:
            for server in servers:
                console.print(server.log_tail(20), markup=False, highlight=False)
            raise
        finally:
            stop_all(servers)
    lines = figures(results, scenarios, size)
    console.print(table(lines, servers))
    output.parent.mkdir(parents=True, exist_ok=True)
    versions = [_version_of(server) for server in servers]
    output.write_text(json.dumps(as_json(lines, results, servers, size, versions), indent=2) + "\n")
    console.print(f"written to {output}")


def _configured(folder: Path) -> list[Server]:
    authority = Authority(folder / "authority")
    return [
        inglenook(folder / "ours", authority),
        synapse(folder / "theirs", authority, small_caches=False),
    ]


def _version_of(server: Server) -> str:
    return str(synapse_version()) if server.software == "synapse" else importlib.metadata.version("inglenook")


if __name__ == "__main__":
    typer.run(main)
