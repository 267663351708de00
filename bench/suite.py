"""Both servers side by side on each engine: started, measured, and what came of it printed and kept."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import plots
from bench.figures import Figure, figures
from bench.report import as_json, table, warnings
from bench.run import Results, run
from bench.scenarios.scenario import Scenario
from bench.scenarios.size import Size
from bench.servers import SOFTWARE, running
from tests.interop.synapse import synapse_version


@dataclass(frozen=True)
class Suite:
    """What to measure, on which engines, and under which name it is kept in ``output``."""

    scenarios: Sequence[Scenario]
    size: Size
    engines: Sequence[str]
    output: Path
    name: str
    #: Our server without Synapse beside it.
    alone: bool = False

    def measure(self, console: Console) -> bool:
        """Do all of it; whether every answer was right."""
        right = True
        software = SOFTWARE[:1] if self.alone else SOFTWARE
        for engine in self.engines:
            with console.status("starting") as status:
                results = measured(engine, software, self.scenarios, self.size, status.update)
            lines = figures(results, self.scenarios, self.size)
            console.print(table(lines, software, engine, self.size))
            for warning in warnings(lines):
                console.print(f"[yellow]Careful:[/yellow] {warning}")
            for key, reason in results.failed.items():
                console.print(f"[red]Failed:[/red] {key}:")
                console.print(reason, markup=False)
            right = right and not results.failed
            for file in self._kept(engine, lines, results, software):
                console.print(f"written to {file}")
        return right

    def _kept(
        self, engine: str, lines: list[Figure], results: Results, software: Sequence[str]
    ) -> list[Path]:
        self.output.mkdir(parents=True, exist_ok=True)
        name = f"{self.name}-{engine}"
        file = self.output / f"{name}.json"
        versions = [f"{each} {_version_of(each)}" for each in software]
        file.write_text(json.dumps(as_json(engine, lines, results, versions, self.size), indent=1) + "\n")
        return [file] if self.alone else [file, *plots.ratios(engine, lines, self.output, name)]


def measured(
    engine: str,
    software: Sequence[str],
    scenarios: Sequence[Scenario],
    size: Size,
    tell: Callable[[str], None],
) -> Results:
    """Start the servers, run the scenarios, and stop them."""
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
