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
from rich import box
from rich.console import Console
from rich.table import Table

from homeserver.cli_options import ConfigOption
from homeserver.cli_output import fail, load_or_fail, say, this_command
from homeserver.clock import SystemClock
from homeserver.config import Config
from homeserver.errors import MatrixError, not_found
from homeserver.storage import moderation, open_database, sso_subjects
from homeserver.storage.database import Database
from homeserver.storage.errors import DatabaseInUse, StorageError
from homeserver.storage.user_listing import any_user, every_user
from homeserver.users.accounts import Accounts
from homeserver.users.passwords import Passwords
from homeserver.users.sessions import Sessions

T = TypeVar("T")

users = typer.Typer(help="Create, list and change accounts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name: alice, or @alice:example.org.")]
Password = Annotated[
    str | None,
    typer.Option(
        help="Made up and printed when left out. Others on this machine can see it in the command.",
        show_default=False,
    ),
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
    localpart = user_id_of(loaded, name)[1:].removesuffix(f":{loaded.server_name}")
    chosen = made_up_password() if password is None else password
    user_id = with_database(
        loaded, lambda db: accounts_of(loaded, db).create_account(localpart, chosen, admin=admin)
    )
    say(f"Created {user_id}{', an admin' if admin else ''}.")
    if password is None:
        say(f"Password: {chosen}")


@users.command("list")
def list_users(config: ConfigOption) -> None:
    """List the accounts."""
    table = Table("User", "Created (UTC)", "Admin", "Deactivated", box=box.SIMPLE_HEAD)
    for user in with_database(load_or_fail(config), lambda db: every_user(db.scan)):
        created = datetime.fromtimestamp(user.created_at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            user.user_id, created, "yes" if user.is_admin else "", "yes" if user.deactivated else ""
        )
    # Wide enough for the longest user id, which must not be cut; the table is as narrow as it can be.
    Console(width=400).print(table)


@users.command("reset-password")
def reset_password(config: ConfigOption, name: Name, password: Password = None) -> None:
    """Give an account a new password, and log all its devices out."""
    loaded = load_or_fail(config)
    user_id = user_id_of(loaded, name)
    chosen = made_up_password() if password is None else password

    async def reset(db: Database) -> None:
        await check_active(loaded, db, user_id)
        await accounts_of(loaded, db).change_password(user_id, chosen)
        await Sessions(db, SystemClock()).log_out_everywhere(user_id)

    with_database(loaded, reset)
    say(f"{user_id} has a new password, and its devices are logged out.")
    if password is None:
        say(f"Password: {chosen}")


@users.command()
def deactivate(config: ConfigOption, name: Name) -> None:
    """Close an account for good: nobody can log in to it, or have its name, ever again."""
    loaded = load_or_fail(config)
    user_id = user_id_of(loaded, name)

    async def end(db: Database) -> None:
        await check_active(loaded, db, user_id)
        await accounts_of(loaded, db).deactivate(user_id)
        await Sessions(db, SystemClock()).log_out_everywhere(user_id)

    with_database(loaded, end)
    say(f"{user_id} is deactivated, and its devices are logged out. It stays listed in the rooms it was in.")


@users.command()
def lock(config: ConfigOption, name: Name) -> None:
    """Lock an account: it can do nothing but log out, until it is unlocked."""
    say(f"{_moderate(config, name, locked=True)} is locked.")


@users.command()
def unlock(config: ConfigOption, name: Name) -> None:
    """Unlock an account, with the sessions it had."""
    say(f"{_moderate(config, name, locked=False)} is not locked.")


@users.command()
def suspend(config: ConfigOption, name: Name) -> None:
    """Suspend an account: it can read, but do nothing that others notice, until that is ended."""
    say(f"{_moderate(config, name, suspended=True)} is suspended.")


@users.command()
def unsuspend(config: ConfigOption, name: Name) -> None:
    """End the suspension of an account."""
    say(f"{_moderate(config, name, suspended=False)} is not suspended.")


@users.command()
def link(
    config: ConfigOption,
    name: Name,
    provider: Annotated[str, typer.Argument(help="The provider's id in the configuration (sso.providers).")],
    subject: Annotated[str, typer.Argument(help="Whom the provider means: its claim sub.")],
) -> None:
    """Let somebody log in to an account by single sign-on."""
    loaded = load_or_fail(config)
    user_id = user_id_of(loaded, name)
    if provider not in {each.id for each in loaded.sso.providers}:
        fail(f"the configuration has no provider {provider}")

    async def add(db: Database) -> bool:
        await check_active(loaded, db, user_id)
        return await db.write(lambda tx: sso_subjects.add(tx, provider, subject, user_id))

    if not with_database(loaded, add):
        fail(f"{subject} of {provider} is linked with an account already")
    say(f"{subject} of {provider} logs in to {user_id} from now on.")


def _moderate(path: Path, name: str, *, locked: bool | None = None, suspended: bool | None = None) -> str:
    loaded = load_or_fail(path)
    user_id = user_id_of(loaded, name)

    async def change(db: Database) -> None:
        await check_active(loaded, db, user_id)
        if locked is not None:
            await db.write(lambda tx: moderation.set_locked(tx, user_id, locked))
        if suspended is not None:
            await db.write(lambda tx: moderation.set_suspended(tx, user_id, suspended))

    with_database(loaded, change)
    return user_id


def introduce_first_admin(config: Config, path: Path) -> None:
    """On a server without accounts, create one named admin and show its password, this once."""
    password = made_up_password()

    async def create_if_first(db: Database) -> str | None:
        if await any_user(db.read):
            return None
        return await accounts_of(config, db).create_account("admin", password, admin=True)

    user_id = with_database(config, create_if_first)
    if user_id is not None:
        say(f"Created the first account, {user_id}, an admin.", f"Password: {password}  (not shown again)")
    say(
        "Create more accounts by registering in a client or, while the server is stopped, with",
        f"    {this_command()} user create --config {path} NAME",
    )


def with_database(config: Config, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do ``work`` with the server's database; ends the command with a sentence where it cannot be done."""

    async def opened() -> T:
        database = await open_database(config.database)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(opened())
    except DatabaseInUse as error:
        fail(str(error), "Stop the server first, then run this command again.")
    except (MatrixError, StorageError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"the database cannot be opened: {error.strerror or error}")


def accounts_of(config: Config, database: Database) -> Accounts:
    """The accounts in a database."""
    passwords = Passwords(minimum_length=config.login.minimum_password_length)
    return Accounts(database, SystemClock(), passwords, config.server_name)


async def check_active(config: Config, database: Database, user_id: str) -> None:
    """The user must be there and not be deactivated: ``M_NOT_FOUND`` otherwise."""
    user = await accounts_of(config, database).user(user_id)
    if user is None:
        raise not_found(f"There is no user {user_id}")
    if user.deactivated:
        raise not_found(f"{user_id} is deactivated")


def user_id_of(config: Config, name: str) -> str:
    """The id of a local user from a name or an id; ends the command for another server's."""
    if not name.startswith("@"):
        return f"@{name.lower()}:{config.server_name}"
    if name.partition(":")[2] != config.server_name:
        fail(f"{name} is not a user of {config.server_name}")
    return name


def made_up_password() -> str:
    """Enough chance that nobody guesses it, in characters that can be typed."""
    return secrets.token_urlsafe(15)
