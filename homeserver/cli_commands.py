"""The commands at a terminal: make a server, run it, check its configuration.

Commands say on standard output what they did and on standard error what went
wrong, in sentences, with exit status 1.  Passwords made here are shown on standard
output once and never logged.  The commands for accounts are in ``cli_users.py``.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from homeserver.cli import run_server
from homeserver.cli_options import ConfigOption
from homeserver.cli_output import fail, load_or_fail, say, this_command
from homeserver.cli_reports import reports
from homeserver.cli_users import introduce_first_admin, users
from homeserver.config import ConfigErrors, describe_listener
from homeserver.new_server import CONFIG_FILE, KEY_FILE, write_config, write_new_server, write_signing_key

# Tracebacks with local variables would show secrets.
app = typer.Typer(
    help="Inglenook, a Matrix homeserver.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(users, name="user")
app.add_typer(reports, name="reports")

SQLITE_FILE = "inglenook.db"

Folder = Annotated[Path, typer.Argument(help="The folder for the configuration, the key and the data.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at, on 127.0.0.1.")]


@app.command()
def init(
    folder: Folder,
    server_name: Annotated[str, typer.Option(help="The name in user ids, such as example.org.")],
    port: Port = 8008,
    database: Annotated[
        str, typer.Option(help="A path, or postgresql://USER:PASSWORD@HOST/DATABASE.")
    ] = SQLITE_FILE,
) -> None:
    """Write a configuration and a signing key for a new server."""
    try:
        path = write_new_server(folder, server_name=server_name, port=port, database=database)
    except ConfigErrors as errors:
        fail(*(f"{mistake.key} {mistake.message}" for mistake in errors.mistakes))
    except OSError as error:
        fail(str(error))
    say(f"Wrote {path} and {path.with_name(KEY_FILE)}.")
    say(f"Create the first account:  {this_command()} user create --config {path} --admin NAME")
    say(f"Start the server:          {this_command()} run --config {path}")


@app.command()
def check(config: ConfigOption) -> None:
    """Report every mistake in a configuration file."""
    load_or_fail(config)
    say(f"{config} is fine.")


@app.command()
def run(config: ConfigOption) -> None:
    """Start the server."""
    run_server(load_or_fail(config))


@app.command()
def quickstart(folder: Folder, port: Port = 8008) -> None:
    """Start a server to try things out, made on the first start: open registration, and an admin account."""
    path, key_path = folder / CONFIG_FILE, folder / KEY_FILE
    try:
        if not key_path.exists():
            write_signing_key(key_path)
        if not path.exists():
            write_config(path, server_name="localhost", port=port, database=SQLITE_FILE, registration="open")
    except (ConfigErrors, OSError) as error:
        fail(str(error))
    config = load_or_fail(path)
    introduce_first_admin(config, path)
    for listener in config.listeners:
        say(f"Starting Inglenook at {describe_listener(listener)}")
    run_server(config)


@app.command()
def version() -> None:
    """Print the version."""
    say(f"Inglenook {version_of('inglenook')}")
