"""Writes what a new server starts from: a configuration file and a signing key.

Neither is ever overwritten: a lost signing key cannot be had again, and the
servers that know the old one would not believe the new one.
"""

from __future__ import annotations

import json
import os
import secrets
import string
from pathlib import Path
from typing import Literal

from homeserver.config import ConfigErrors, load_config
from homeserver.protocol.signing import format_signing_key_file, generate_signing_key

CONFIG_FILE = "config.yaml"
KEY_FILE = "signing.key"

_CONFIG = """\
# Inglenook's configuration: the keys that a server needs, and the ones that most people change.
# All others, with their explanations, are in config.sample.yaml of the distribution.
# Check this file with: inglenook check --config {path}

server_name: {server_name}

# Where clients reach the server, if that is not https://SERVER_NAME:
#public_base_url: https://matrix.example.org

# Whoever has this file can speak as your server.  Keep it secret, and keep a copy.
signing_key: {key_file}

# A path is an SQLite file; a PostgreSQL database is postgresql://USER:PASSWORD@HOST/DATABASE
database: {database}

listeners:
  - port: {port}
    bind: 127.0.0.1
    serves: [client, federation, health]

# closed, token or open
registration:
  mode: {registration}
"""


def write_new_server(folder: Path, *, server_name: str, port: int, database: str) -> Path:
    """Write the configuration of a closed server and, beside it, its signing key.

    Both are readable by the owner alone.  Returns the path of the configuration.
    Raises ``FileExistsError`` where either file is there already, and ``ConfigErrors``
    for a value that a configuration may not hold; nothing is left behind then.
    """
    config_path, key_path = folder / CONFIG_FILE, folder / KEY_FILE
    for path in (config_path, key_path):
        if path.exists():
            raise FileExistsError(f"{path} is there already, and is not overwritten")
    write_signing_key(key_path)
    try:
        write_config(
            config_path, server_name=server_name, port=port, database=database, registration="closed"
        )
    except BaseException:
        key_path.unlink()
        raise
    return config_path


def write_config(
    path: Path, *, server_name: str, port: int, database: str, registration: Literal["closed", "open"]
) -> None:
    """Write a configuration that loads; the signing key must be beside it.

    Raises ``FileExistsError``, and ``ConfigErrors`` after which there is no file.
    """
    text = _CONFIG.format(
        path=path,
        key_file=KEY_FILE,
        # A JSON text is a quoted YAML text.
        server_name=json.dumps(server_name),
        database=json.dumps(database),
        port=port,
        registration=registration,
    )
    _write_private(path, text)
    try:
        load_config(path)
    except ConfigErrors:
        path.unlink()
        raise


def write_signing_key(path: Path) -> None:
    """Write a new signing key; ``FileExistsError`` where a file is there already."""
    version = "a_" + "".join(secrets.choice(string.ascii_letters) for _ in range(4))
    _write_private(path, format_signing_key_file(generate_signing_key(version)))


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
