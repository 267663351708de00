"""``inglenook reports``: what people reported, for who runs the server.

As with ``inglenook user``, an SQLite database can be looked into while the server is stopped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from homeserver.cli_options import ConfigOption
from homeserver.cli_output import fail, load_or_fail, say
from homeserver.cli_users import with_database
from homeserver.storage import events as event_storage
from homeserver.storage import reports as report_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.reports import Report

reports = typer.Typer(help="Read what people reported.", no_args_is_help=True)


@reports.command("list")
def list_reports(
    config: ConfigOption,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
) -> None:
    """List the newest reports."""
    found = with_database(load_or_fail(config), lambda db: report_storage.newest(db.scan, limit))
    table = Table("Report", "Received (UTC)", "By", "About", box=box.SIMPLE_HEAD)
    for report in found:
        about = report.event_id or report.room_id or report.user_id
        table.add_row(str(report.report_id), _when(report), report.reporter, about)
    # Wide enough for the longest ids, which must not be cut; the table is as narrow as it can be.
    Console(width=800).print(table)


@reports.command()
def show(
    config: ConfigOption,
    number: Annotated[int, typer.Argument(help="The number of the report, as the list shows it.")],
) -> None:
    """Show one report, with the event it is about."""

    async def read(db: Database) -> tuple[Report | None, StoredEvent | None]:
        report = await report_storage.by_id(db.scan, number)
        event = await event_storage.by_id(db.scan, report.event_id) if report and report.event_id else None
        return report, event

    report, event = with_database(load_or_fail(config), read)
    if report is None:
        fail(f"There is no report {number}.")
    lines = {
        "Report": str(report.report_id),
        "Received (UTC)": _when(report),
        "By": report.reporter,
        "Room": report.room_id,
        "Event": report.event_id,
        "User": report.user_id,
        "Reason": report.reason,
        "Content": event.event.content_json.decode() if event else "",
    }
    # What people write must not be able to speak to the terminal.
    say(*(f"{name}: {_printable(text)}" for name, text in lines.items() if text))


def _when(report: Report) -> str:
    return datetime.fromtimestamp(report.received_at / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
