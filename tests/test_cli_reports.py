"""``inglenook reports``, run as a person runs it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from homeserver.cli_commands import app
from homeserver.config import load_config
from homeserver.storage import open_database, reports
from homeserver.storage.reports import Report


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A new server's configuration."""
    made = CliRunner().invoke(app, ["init", str(tmp_path), "--server-name", "example.org"])
    assert made.exit_code == 0
    return tmp_path / "config.yaml"


def keep(config: Path, *kept: Report) -> None:
    async def store() -> None:
        database = await open_database(load_config(config, {}).database)
        for report in kept:
            await database.write(partial(reports.put, report=report))
        await database.close()

    asyncio.run(store())


def test_reports_are_listed_and_shown(config: Path) -> None:
    about_event = Report("@bob:x", "!room:x", "$event", "@eve:x", "rude\x1b[31m\nand red", 1_700_000_000_000)
    keep(config, Report("@a:x", "", "", "@spam:x", "", 1_700_000_000_000), about_event)
    run = CliRunner()

    listed = run.invoke(app, ["reports", "list", "--config", str(config)])
    assert listed.exit_code == 0
    lines = [line.split() for line in listed.stdout.splitlines() if "@" in line]
    assert [(line[0], line[-2], line[-1]) for line in lines] == [
        ("2", "@bob:x", "$event"),
        ("1", "@a:x", "@spam:x"),
    ]

    shown = run.invoke(app, ["reports", "show", "2", "--config", str(config)])
    assert shown.exit_code == 0
    assert "User: @eve:x" in shown.stdout
    assert "Received (UTC): 2023-11-14 22:13" in shown.stdout
    assert "rude\ufffd[31m\nand red" in shown.stdout

    missing = run.invoke(app, ["reports", "show", "7", "--config", str(config)])
    assert missing.exit_code == 1
    assert "There is no report 7." in missing.stderr
