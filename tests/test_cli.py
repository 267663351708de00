"""The ``inglenook`` command, as a person at a terminal meets it."""

from __future__ import annotations

import asyncio
import logging
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import structlog
import trustme
from typer.testing import CliRunner, Result

from homeserver.cli_commands import app
from homeserver.cli_users import accounts_of
from homeserver.config import Config, load_config
from homeserver.errors import MatrixError
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.storage import open_database


def inglenook(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A new server's configuration."""
    folder = tmp_path / "server"
    assert inglenook("init", folder, "--server-name", "example.org").exit_code == 0
    return folder / "config.yaml"


def test_init_writes_a_server_that_checks(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "server"

    made = inglenook("init", folder, "--server-name", "example.org:8448", "--port", "9000")

    assert made.exit_code == 0
    assert f"run --config {folder}" in made.stdout
    config = load_config(folder / "config.yaml", {})
    assert config.server_name == "example.org:8448"
    assert config.listeners[0].port == 9000
    assert config.registration.mode == "closed"
    assert parse_signing_key_file(config.signing_key.read_text()).key_id.startswith("ed25519:a_")
    assert inglenook("check", "--config", folder / "config.yaml").exit_code == 0


def test_init_keeps_its_files_to_their_owner(config: Path) -> None:
    for path in (config, config.with_name("signing.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_new_server_has_a_key_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        inglenook("init", tmp_path / name, "--server-name", "example.org")
    assert (tmp_path / "one/signing.key").read_text() != (tmp_path / "two/signing.key").read_text()


@pytest.mark.parametrize("kept", ["config.yaml", "signing.key"])
def test_init_overwrites_nothing(config: Path, kept: str) -> None:
    other = ({"config.yaml", "signing.key"} - {kept}).pop()
    config.with_name(other).unlink()
    before = config.with_name(kept).read_bytes()

    again = inglenook("init", config.parent, "--server-name", "example.com")

    assert again.exit_code == 1
    assert "is there already" in again.stderr
    assert config.with_name(kept).read_bytes() == before
    assert not config.with_name(other).exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--server-name", "https://example.org"], "server_name must be a server name"),
        (
            ["--server-name", "example.org", "--database", "mysql://me:hunter2@db/x"],
            "database must be a path",
        ),
    ],
)
def test_init_leaves_nothing_behind_when_it_refuses(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    refused = inglenook("init", tmp_path, *arguments)

    assert refused.exit_code == 1
    assert complaint in refused.stderr
    assert "hunter2" not in refused.output
    assert list(tmp_path.iterdir()) == []


def test_init_writes_the_database_it_is_given(tmp_path: Path) -> None:
    url = "postgresql://me:p%22w@localhost/inglenook"
    inglenook("init", tmp_path, "--server-name", "example.org", "--database", url)
    assert load_config(tmp_path / "config.yaml", {}).database == url


def test_check_lists_every_mistake(config: Path) -> None:
    config.write_text(
        config.read_text().replace("mode: closed", "mode: shut") + "presense:\n  enabled: true\n"
    )

    checked = inglenook("check", "--config", config)

    assert checked.exit_code == 1
    lines = checked.stderr.splitlines()
    assert len(lines) == 2
    assert re.match(
        rf"{re.escape(str(config))}: line \d+: registration.mode: must be one of: closed", lines[0]
    )
    assert "presense: unknown key; the nearest known key is presence" in lines[1]


def test_check_looks_into_the_files_that_are_named(config: Path) -> None:
    config.with_name("signing.key").write_text("ed25519 a_abcd hunter2!\n")
    certificate = config.with_name("certificate.pem")
    certificate.write_text("not a certificate")
    listener = f"serves: [client]\n    tls: {{certificate: {certificate}, private_key: {certificate}}}"
    text = config.read_text().replace("serves: [client, federation, health]", listener)
    config.write_text(text + f"federation: {{ca_file: {certificate}}}\n")

    checked = inglenook("check", "--config", config)

    assert checked.exit_code == 1
    assert [line.split(": ")[1] for line in checked.stderr.splitlines()] == [
        "signing_key",
        "listeners[0].tls",
        "federation.ca_file",
    ]
    assert "hunter2" not in checked.output


def test_check_accepts_a_certificate_and_its_key(config: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("example.org")
    authority.cert_pem.write_to_path(str(config.with_name("ca.pem")))
    issued.private_key_and_cert_chain_pem.write_to_path(str(config.with_name("both.pem")))
    listener = "serves: [client]\n    tls: {certificate: both.pem, private_key: both.pem}"
    text = config.read_text().replace("serves: [client, federation, health]", listener)
    config.write_text(text + "federation: {ca_file: ca.pem}\n")

    assert inglenook("check", "--config", config).exit_code == 0


def test_a_configuration_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    checked = inglenook("check", "--config", tmp_path / "lost.yaml")

    assert checked.exit_code == 1
    assert "lost.yaml: line 1: the file cannot be read: No such file or directory" in checked.stderr


def test_the_module_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "homeserver", "version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout == f"Inglenook {version('inglenook')}\n"


def shown_password(output: str) -> str:
    found = re.search(r"^Password: (\S+)", output, re.MULTILINE)
    assert found is not None
    return found[1]


async def logs_in(config: Path, name: str, password: str) -> bool:
    loaded = load_config(config, {})
    database = await open_database(loaded.database)
    try:
        await accounts_of(loaded, database).authenticate(name, password)
    except MatrixError:
        return False
    finally:
        await database.close()
    return True


def test_an_account_is_created_with_a_password_that_is_shown_once(config: Path) -> None:
    created = inglenook("user", "create", "--config", config, "Alice", "--admin")

    assert created.exit_code == 0, created.output
    assert created.stdout.startswith("Created @alice:example.org, an admin.\n")
    assert asyncio.run(logs_in(config, "alice", shown_password(created.stdout)))


def test_a_password_that_is_given_is_not_shown(config: Path) -> None:
    created = inglenook("user", "create", "--config", config, "@bob:example.org", "--password", "hunter22")

    assert created.exit_code == 0, created.output
    assert "hunter22" not in created.output
    assert asyncio.run(logs_in(config, "bob", "hunter22"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["alice"], "taken"),
        (["spa ce"], "can only contain"),
        (["@bob:example.com"], "@bob:example.com is not a user of example.org"),
        (["bob", "--password", "short"], "at least 8"),
    ],
)
def test_an_account_that_cannot_be_is_refused_in_a_sentence(
    config: Path, arguments: list[str], complaint: str
) -> None:
    inglenook("user", "create", "--config", config, "alice")

    refused = inglenook("user", "create", "--config", config, *arguments)

    assert refused.exit_code == 1
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_accounts_are_listed_whole(config: Path) -> None:
    long_name = "a" * 120
    inglenook("user", "create", "--config", config, long_name, "--admin")
    inglenook("user", "create", "--config", config, "bob")
    inglenook("user", "deactivate", "--config", config, "bob")

    rows = inglenook("user", "list", "--config", config).stdout.splitlines()

    [alice] = [row.split() for row in rows if f"@{long_name}:example.org" in row]
    [bob] = [row.split() for row in rows if "@bob:example.org" in row]
    assert (alice[-1], len(alice)) == ("yes", 4)
    assert (bob[-1], len(bob)) == ("yes", 4)


def test_a_reset_password_replaces_the_old_one(config: Path) -> None:
    inglenook("user", "create", "--config", config, "alice", "--password", "hunter22")

    reset = inglenook("user", "reset-password", "--config", config, "alice")

    assert reset.exit_code == 0, reset.output
    assert asyncio.run(logs_in(config, "alice", shown_password(reset.stdout)))
    assert not asyncio.run(logs_in(config, "alice", "hunter22"))


def test_a_deactivated_account_is_closed_for_good(config: Path) -> None:
    inglenook("user", "create", "--config", config, "alice", "--password", "hunter22")

    assert inglenook("user", "deactivate", "--config", config, "alice").exit_code == 0

    assert not asyncio.run(logs_in(config, "alice", "hunter22"))
    assert inglenook("user", "reset-password", "--config", config, "alice").exit_code == 1
    assert inglenook("user", "create", "--config", config, "alice").exit_code == 1


def test_an_account_is_locked_and_suspended_and_both_end(config: Path) -> None:
    inglenook("user", "create", "--config", config, "alice", "--password", "hunter22")

    assert "@alice:example.org is locked" in inglenook("user", "lock", "--config", config, "alice").stdout
    assert not asyncio.run(logs_in(config, "alice", "hunter22"))
    assert inglenook("user", "unlock", "--config", config, "alice").exit_code == 0
    assert asyncio.run(logs_in(config, "alice", "hunter22"))
    suspended = inglenook("user", "suspend", "--config", config, "alice")
    assert "@alice:example.org is suspended" in suspended.stdout
    assert asyncio.run(logs_in(config, "alice", "hunter22"))
    assert inglenook("user", "unsuspend", "--config", config, "alice").exit_code == 0


def test_an_account_is_linked_with_one_elsewhere_once(config: Path) -> None:
    inglenook("user", "create", "--config", config, "alice")
    inglenook("user", "create", "--config", config, "bob")
    link = ("user", "link", "--config", config)
    assert "has no provider example" in inglenook(*link, "alice", "example", "1").stderr
    with config.open("a") as file:
        file.write(
            "sso: {providers: [{id: example, name: E, issuer: 'https://id.example', client_id: us}]}\n"
        )

    assert inglenook(*link, "alice", "example", "1").exit_code == 0
    assert "is linked with an account already" in inglenook(*link, "bob", "example", "1").stderr


@pytest.mark.parametrize("command", ["reset-password", "deactivate", "lock", "suspend"])
def test_an_account_that_is_not_there_is_a_sentence(config: Path, command: str) -> None:
    refused = inglenook("user", command, "--config", config, "nobody")

    assert refused.exit_code == 1
    assert "There is no user @nobody:example.org" in refused.stderr


def test_while_the_server_has_the_database_the_command_says_to_stop_it(config: Path) -> None:
    async def meanwhile() -> Result:
        database = await open_database(load_config(config, {}).database)
        try:
            return await asyncio.to_thread(inglenook, "user", "create", "--config", config, "alice")
        finally:
            await database.close()

    refused = asyncio.run(meanwhile())

    assert refused.exit_code == 1
    assert "Stop the server first" in refused.stderr


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Config]]:
    """In place of the server: notes what it was asked to serve, logs a line, and ends."""
    configs: list[Config] = []

    async def serve(config: Config) -> None:
        configs.append(config)
        logging.getLogger("homeserver").warning("served")

    server = ModuleType("homeserver.main")
    monkeypatch.setattr(server, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "homeserver.main", server)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield configs
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_run_serves_the_configuration(config: Path, served: list[Config]) -> None:
    ran = inglenook("run", "--config", config)

    assert ran.exit_code == 0, ran.output
    assert served == [load_config(config, {})]
    assert "served" in ran.stderr


def test_run_refuses_a_configuration_with_mistakes(config: Path, served: list[Config]) -> None:
    config.write_text("server_name: example.org\n")

    assert inglenook("run", "--config", config).exit_code == 1
    assert served == []


def test_a_quick_start_makes_a_server_with_an_admin_once(tmp_path: Path, served: list[Config]) -> None:
    first = inglenook("quickstart", tmp_path / "data", "--port", "9008")
    again = inglenook("quickstart", tmp_path / "data")

    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert served[0] == served[1]
    assert (served[0].server_name, served[0].registration.mode) == ("localhost", "open")
    assert "http://localhost:9008" in first.stdout
    assert "user create --config" in again.stdout
    password = shown_password(first.stdout)
    assert "Password" not in again.stdout
    assert password not in first.stderr
    assert asyncio.run(logs_in(tmp_path / "data/config.yaml", "admin", password))


def test_a_quick_start_goes_on_with_the_files_that_are_there(tmp_path: Path, served: list[Config]) -> None:
    inglenook("quickstart", tmp_path)
    key = (tmp_path / "signing.key").read_text()
    (tmp_path / "config.yaml").unlink()

    assert inglenook("quickstart", tmp_path).exit_code == 0

    assert (tmp_path / "signing.key").read_text() == key
    assert len(served) == 2


def test_check_wants_a_signing_key_that_is_not_an_old_one(config: Path) -> None:
    key = parse_signing_key_file(config.with_name("signing.key").read_text())
    old = f"{{key_id: '{key.key_id}', public_key: '{key.verify_key_base64}', expired_ts: 1}}"
    config.write_text(config.read_text() + f"old_signing_keys: [{old}]\n")

    checked = inglenook("check", "--config", config)

    assert checked.exit_code == 1
    assert f"old_signing_keys: {key.key_id} is the id of the key in signing_key" in checked.stderr
