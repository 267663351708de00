"""The application service that registers the clients that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SERVICE_TOKEN = "the token of the service of the benchmark"


def registration(folder: Path) -> dict[str, Any]:
    """The section of our configuration that names the service, whose file is made in ``folder``."""
    service = {
        "id": "bench",
        "url": None,
        "as_token": SERVICE_TOKEN,
        "hs_token": "the token of the server of the benchmark",
        "sender_localpart": "bench",
        "namespaces": {"users": [{"regex": "@waits.*", "exclusive": False}], "rooms": [], "aliases": []},
    }
    file = folder / "service.yaml"
    file.write_text(yaml.safe_dump(service))
    return {"application_services": [str(file)]}
