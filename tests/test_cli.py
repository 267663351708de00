"""The ``inglenook`` command, as a person at a terminal meets it."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import trustme
from click.testing import Result
from typer.testing import CliRunner

from homeserver.cli import app
from homeserver.config import load_config
from homeserver.protocol.signing import parse_signing_key_file


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
    assert "inglenook run --config" in made.stdout
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
        (["--server-name", "example.org", "--database", "mysql://me:hunter2@db/x"], "database must be a path"),
    ],
)
def test_init_leaves_nothing_behind_when_it_refuses(tmp_path: Path, arguments: list[str], complaint: str) -> None:
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
    config.write_text(config.read_text().replace("mode: closed", "mode: shut") + "presense:\n  enabled: true\n")

    checked = inglenook("check", "--config", config)

    assert checked.exit_code == 1
    lines = checked.stderr.splitlines()
    assert len(lines) == 2
    assert re.match(rf"{re.escape(str(config))}: line \d+: registration.mode: must be one of: closed", lines[0])
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
        [sys.executable, "-m", "homeserver", "version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == f"Inglenook {version('inglenook')}\n"
