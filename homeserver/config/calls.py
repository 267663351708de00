"""Calls over MatrixRTC: the machines they go through, and the events that are sent later for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

import orjson

from homeserver.config.reader import Rule
from homeserver.config.rules import number
from homeserver.protocol.canonical_json import InvalidJSON, encode

_MAX_TRANSPORTS = 20
_MAX_TRANSPORT_BYTES = 4096
_DAY_S = 24 * 3600.0


def _transports(transports: tuple[Mapping[str, Any], ...], _folder: Path) -> tuple[Mapping[str, Any], ...]:
    if len(transports) > _MAX_TRANSPORTS or not all(_is_transport(each) for each in transports):
        raise ValueError
    return transports


def _is_transport(transport: Mapping[str, Any]) -> bool:
    kind = transport.get("type")
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_.-]{0,254}", kind):
        return False
    urls = [value for name, value in transport.items() if name == "url" or name.endswith("_url")]
    if kind == "livekit" and not urls:
        return False
    try:
        encode(dict(transport))  # nothing that is not JSON, such as dates
        return all(map(_is_url, urls)) and len(orjson.dumps(transport)) <= _MAX_TRANSPORT_BYTES
    except (InvalidJSON, TypeError):
        return False


def _is_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    parts = urlsplit(value)
    return parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)


#: MSC4143, "Discovery of transport infrastructure": other keys than ``type`` are told to clients as they are.
RtcTransports: TypeAlias = Annotated[
    tuple[Mapping[str, Any], ...],
    Rule(
        f"a list of at most {_MAX_TRANSPORTS} transports, each with a type, and a URL where it has one",
        _transports,
        reads=tuple[Mapping, ...],  # type: ignore[type-arg]
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedEvents:
    """Events that are sent later; without them, who loses the connection seems to stay in a call."""

    enabled: bool = True
    #: In seconds.
    max_delay: Annotated[float, number(float, 1, 365 * _DAY_S)] = _DAY_S
    #: How many one person may have scheduled at a time.
    max_per_user: Annotated[int, number(int, 1, 10_000)] = 100
