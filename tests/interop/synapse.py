"""A real Synapse on the loopback address, from PyPI's ``matrix-synapse`` in an environment of its own.

Its Python is ``.venv-synapse/bin/python`` beside the project, or what the environment variable
``SYNAPSE_PYTHON`` names.  SQLite unless told otherwise; plain HTTP for clients, TLS for other
servers; no rate limit that a test could reach.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.processes import LOOPBACK, Authority, Server, free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
_UNLIMITED = {"per_second": 100_000, "burst_count": 100_000}


def synapse_python() -> Path:
    """The interpreter of Synapse's environment, whether or not it exists."""
    return Path(os.environ.get("SYNAPSE_PYTHON", _REPOSITORY / ".venv-synapse" / "bin" / "python"))


@cache
def synapse_version() -> str | None:
    """The installed version; None where Synapse is not installed."""
    question = "import importlib.metadata as m; print(m.version('matrix-synapse'))"
    try:
        answer = subprocess.run(
            [synapse_python(), "-c", question], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def why_no_synapse() -> str | None:
    """The reason to skip what needs Synapse, or None where it is installed."""
    if synapse_version() is None:
        return f"Synapse is not installed: no matrix-synapse in {synapse_python()} (make test installs it)"
    return None


def synapse(
    folder: Path,
    authority: Authority,
    *,
    small_caches: bool = True,
    public_port: int | None = None,
    database: str | None = None,
) -> Server:
    """A Synapse with its files in ``folder``, configured and not yet started.

    ``database`` is a PostgreSQL URL; SQLite in ``folder`` when None.  ``public_port`` is where other
    servers find it, where that is not its own port.
    """
    folder.mkdir(parents=True, exist_ok=True)
    client_port, federation_port = free_port(), free_port()
    # With a port in its name a server is found without well-known or SRV.
    server_name = f"localhost:{public_port or federation_port}"
    config = _config(folder, authority, server_name, client_port, federation_port)
    if database is not None:
        config["database"] = {"name": "psycopg2", "args": {"dsn": database}}
    if small_caches:
        config["caches"] = {"global_factor": 0.2}
    (folder / "signing.key").write_text(_signing_key())
    (folder / "homeserver.yaml").write_text(yaml.safe_dump(config))
    return Server(
        software="synapse",
        server_name=server_name,
        client_url=f"http://{LOOPBACK}:{client_port}",
        ready_ports=[federation_port],
        command=[
            str(synapse_python()),
            "-m",
            "synapse.app.homeserver",
            "-c",
            str(folder / "homeserver.yaml"),
        ],
        folder=folder,
    )


def _signing_key() -> str:
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 a_{secrets.token_hex(2)} {seed}\n"


def _config(
    folder: Path, authority: Authority, server_name: str, client_port: int, federation_port: int
) -> dict[str, Any]:
    listener = {"type": "http", "bind_addresses": [LOOPBACK]}
    return {
        "server_name": server_name,
        "pid_file": str(folder / "synapse.pid"),
        "listeners": [
            {**listener, "port": client_port, "resources": [{"names": ["client"], "compress": False}]},
            {**listener, "port": federation_port, "tls": True, "resources": [{"names": ["federation"]}]},
        ],
        "tls_certificate_path": str(authority.certificate),
        "tls_private_key_path": str(authority.private_key),
        "federation_custom_ca_list": [str(authority.ca_file)],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "report_stats": False,
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "bcrypt_rounds": 4,
        "allow_public_rooms_over_federation": True,
        "allow_public_rooms_without_auth": True,
        "room_list_publication_rules": [{"action": "allow"}],
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        # A server that was away is tried again after a second, not after ten minutes.
        "federation": {
            "destination_min_retry_interval": "1s",
            "destination_max_retry_interval": "2s",
            "destination_retry_multiplier": 1,
            "max_short_retries": 1,
            "max_long_retries": 1,
            "max_long_retry_delay": "1s",
        },
        **_no_rate_limits(),
    }


def _no_rate_limits() -> dict[str, Any]:
    return {
        "rc_message": _UNLIMITED,
        "rc_registration": _UNLIMITED,
        "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
        "rc_joins_per_room": _UNLIMITED,
        "rc_admin_redaction": _UNLIMITED,
        "rc_room_creation": _UNLIMITED,
        "rc_presence": {"per_user": _UNLIMITED},
        "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
        "rc_invites": {"per_room": _UNLIMITED, "per_user": _UNLIMITED, "per_issuer": _UNLIMITED},
        "rc_federation": {
            "window_size": 1000,
            "sleep_limit": 100_000,
            "sleep_delay": 1,
            "reject_limit": 100_000,
            "concurrent": 100,
        },
    }
