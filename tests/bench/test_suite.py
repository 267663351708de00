"""All of the work, as little of it as there can be, against our own server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench.figures import figures
from bench.plots import ratios
from bench.report import as_json, table
from bench.scenarios import SCENARIOS
from bench.scenarios.size import TINY
from bench.suite import measured
from bench.targets import TARGETS


def test_every_scenario_runs_and_every_answer_is_right(tmp_path: Path) -> None:
    told: list[str] = []

    results = measured("sqlite", ["inglenook"], SCENARIOS, TINY, told.append)

    assert results.failed == {}
    lines = figures(results, SCENARIOS, TINY)
    assert [line.key for line in lines if line.values[0] <= 0 and line.unit != "bytes"] == []
    assert {line.key for line in lines} >= TARGETS.keys()
    assert {key: list(map(len, rounds)) for key, rounds in results.rounds.items()} == {
        scenario.key: [1] for scenario in SCENARIOS
    }
    console = Console(record=True, width=140)
    console.print(table(lines, ["inglenook"], "sqlite", TINY))
    assert "Messages sent, 1 connection" in console.export_text()
    kept = json.loads(json.dumps(as_json("sqlite", lines, results, ["inglenook"], TINY)))
    assert kept["size"] == asdict(TINY)
    assert ratios("sqlite", lines, tmp_path, "tiny") == [tmp_path / "tiny.png", tmp_path / "tiny.svg"]
