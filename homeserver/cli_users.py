"""``inglenook user``: the accounts of a server, for who runs it.

The commands open the server's database themselves.  An SQLite database belongs to
one process at a time, so while the server runs on one they end with a sentence
that says to stop it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from homeserver.cli_output import ConfigOption, fail, load_or_fail, say
from homeserver.clock import SystemClock
from homeserver.config import Config
from homeserver.errors import MatrixError
from homeserver.storage import open_database
from homeserver.storage.errors import DatabaseInUse, StorageError
from homeserver.users.accounts import Accounts

T = TypeVar("T")

users = typer.Typer(help="Create, list and change accounts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name: alice, or @alice:example.org.")]
Password = Annotated[
    str | None,
    typer.Option(help="Made up and printed when left out. Other users of this machine can see it in a command."),
]


@users.command()
def create(
    config: ConfigOption,
    name: Name,
    password: Password = None,
    admin: Annotated[bool, typer.Option("--admin", help="Let the account administer the server.")] = False,
) -> None:
    """Create an account."""
    loaded = load_or_fail(config)
    chosen = password or made_up_password()
    user_id = with_accounts(
        loaded, lambda accounts: accounts.create_account(localpart(loaded, name), chosen, admin=admin)
    )
    say(f"Created {user_id}{' (admin)' if admin else ''}.")
    if password is None:
        say(f"Password: {chosen}")


@users.command("list")
def list_users(config: ConfigOption) -> None:
    """List the accounts."""
    found = with_accounts(load_or_fail(config), lambda accounts: accounts.every_user())
    table = Table("user", "created", "admin", "deactivated")
    for user in found:
        created = datetime.fromtimestamp(user.created_at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(user.user_id, created, "yes" if user.is_admin else "", "yes" if user.deactivated else "")
    Console(soft_wrap=True).print(table)


@users.command("reset-password")
def reset_password(config: ConfigOption, name: Name, password: Password = None) -> None:
    """Give an account a new password, and log all its devices out."""
    loaded = load_or_fail(config)
    chosen = password or made_up_password()
    with_accounts(loaded, lambda accounts: accounts.reset_password(user_id(loaded, name), chosen))
    say(f"{user_id(loaded, name)} has a new password, and every device is logged out.")
    if password is None:
        say(f"Password: {chosen}")


@users.command()
def deactivate(config: ConfigOption, name: Name) -> None:
    """Close an account for good: nobody can log in to it, or have its name, ever again."""
    loaded = load_or_fail(config)
    with_accounts(loaded, lambda accounts: accounts.deactivate(user_id(loaded, name)))
    say(f"{user_id(loaded, name)} is deactivated.")
