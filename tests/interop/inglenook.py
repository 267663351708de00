"""Our own server as a process of its own, on the loopback address.

Started as a user would: ``python -m homeserver run --config FILE``.  Plain HTTP for clients, TLS for
other servers; open registration and no rate limits.  Where the environment variable
``INTEROP_SUBSTITUTE`` is ``synapse``, a Synapse stands in for it: a story that fails then is
wrong itself, and not the server.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.interop.synapse import synapse
from tests.processes import LOOPBACK, Authority, Server, free_port


def inglenook(
    folder: Path,
    authority: Authority,
    *,
    database: str | None = None,
    public_port: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Server:
    """An Inglenook with its files in ``folder``, configured and not yet started.

    ``database`` is a URL as the configuration has it; SQLite in ``folder`` when None.
    ``public_port`` is where other servers find it, where that is not its own port; ``settings`` are
    sections of the configuration that differ from what tests have.
    """
    if os.environ.get("INTEROP_SUBSTITUTE") == "synapse":
        return synapse(folder, authority, public_port=public_port)
    folder.mkdir(parents=True, exist_ok=True)
    client_port, federation_port = free_port(), free_port()
    server_name = f"localhost:{public_port or federation_port}"
    config = _config(folder, authority, server_name, client_port, federation_port)
    config["database"] = database or f"sqlite://{folder / 'inglenook.db'}"
    config |= settings or {}
    (folder / "signing.key").write_text(_signing_key())
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Server(
        software="inglenook",
        server_name=server_name,
        client_url=f"http://{LOOPBACK}:{client_port}",
        ready_ports=[federation_port],
        command=[sys.executable, "-m", "homeserver", "run", "--config", str(folder / "config.yaml")],
        folder=folder,
    )


def _signing_key() -> str:
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 a_{secrets.token_hex(2)} {seed}\n"


def _config(
    folder: Path, authority: Authority, server_name: str, client_port: int, federation_port: int
) -> dict[str, Any]:
    tls = {"certificate": str(authority.certificate), "private_key": str(authority.private_key)}
    return {
        "server_name": server_name,
        "signing_key": str(folder / "signing.key"),
        "listeners": [
            {"bind": LOOPBACK, "port": client_port, "serves": ["client", "metrics"]},
            {"bind": LOOPBACK, "port": federation_port, "serves": ["federation"], "tls": tls},
        ],
        "federation": {"ca_file": str(authority.ca_file), "allow_private_addresses": True},
        "registration": {"mode": "open"},
        "rate_limits": {"enabled": False},
    }
