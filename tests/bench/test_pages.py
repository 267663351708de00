"""From what was kept of a run to the tables of the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.figures import figures
from bench.pages import PAGES, ROOT, rewrite
from bench.report import as_json
from bench.run import Results
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import Round
from bench.scenarios.size import QUICK

BEGIN, END = "<!-- {}: begin, made by `make bench-pages` -->\n", "<!-- {}: end -->\n"
SEND = [scenario for scenario in SCENARIOS if scenario.key == "send_1"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The results of one scenario: 100 messages in one second, and in 30."""
    rounds = [
        [Round(count=100, seconds=seconds, server_cpu=0.2, database_cpu=0.0, generator_cpu=0.0)]
        for seconds in (1.0, 30.0)
    ]
    memory = [(60 * 2**20, 50 * 2**20), (120 * 2**20, 110 * 2**20)]
    measured = Results({"send_1": rounds}, idle_memory=memory, memory_after=memory)
    lines = figures(measured, SEND, QUICK)
    kept = as_json("sqlite", lines, measured, ["inglenook", "synapse"], QUICK)
    (tmp_path / "quick-sqlite.json").write_text(json.dumps(kept))
    return tmp_path


def page_with(folder: Path, *names: str) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"before\n{BEGIN.format(name)}old\n{END.format(name)}after\n" for name in names))
    return page


def test_a_table_takes_the_place_of_the_old_one(results: Path) -> None:
    page = page_with(results, "all")

    assert rewrite(page, results) == []

    text = page.read_text()
    assert "| Messages sent, 1 connection | 100 /s | 3.33 /s | 30 | 30 – 30 | 25 |\n" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rewrite(page, results)
    assert page.read_text() == text


def test_what_was_not_measured_stays_as_it_is_and_is_named(results: Path) -> None:
    page = page_with(results, "highlights", "growth", "soak-sqlite", "profile-sqlite-send_1")

    assert rewrite(page, results) == ["growth", "soak-sqlite", "profile-sqlite-send_1"]

    text = page.read_text()
    assert text.count("old") == 3
    assert "| Messages sent, 1 connection | 30 |\n" in text


def test_a_profile_says_threads_parts_and_modules_in_microseconds(results: Path) -> None:
    profile = {
        "scenario": "send_1",
        "engine": "sqlite",
        "samples": 10,
        "cpu_ms": 0.8,
        "threads": {"MainThread": 0.6, "sqlite-writer": 0.2},
        "parts": {"homeserver/rooms": 0.8},
        "modules": {"homeserver/rooms/send.py": 0.5, "homeserver/rooms/room.py": 0.3},
    }
    (results / "profile-sqlite.json").write_text(json.dumps([profile]))
    page = page_with(results, "profile-sqlite-send_1")

    assert rewrite(page, results) == []

    assert "800 µs on SQLite" in page.read_text()
    assert "- by module: homeserver/rooms/send.py 500, homeserver/rooms/room.py 300\n" in page.read_text()


def test_every_place_in_the_documentation_is_one_that_can_be_filled(results: Path) -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for name in re.findall(r"<!-- ([\w-]+): begin, made by `make bench-pages` -->", text):
            copy = page_with(results, name)
            assert rewrite(copy, results) in ([], [name])
