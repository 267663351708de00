"""Streams that tell clients news, and which web pages may use the server: sections of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from homeserver.config.rules import number, text

Origin: TypeAlias = Annotated[
    str,
    text(r"\*|[a-z][a-z0-9+.-]*://[^\s/]+", 'an origin such as https://app.example.org, or "*"'),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which web pages may use the server."""

    allowed_origins: tuple[Origin, ...] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Server-sent events and WebSockets; times in seconds."""

    enabled: bool = True
    #: Open at once: in all, for one user, for one device.
    max_streams: Annotated[int, number(int, 1, 1_000_000)] = 20_000
    max_streams_per_user: Annotated[int, number(int, 1, 100_000)] = 100
    max_streams_per_device: Annotated[int, number(int, 1, 100_000)] = 10
    #: After which a stream ends, for the client to come back with its token.
    lifetime: Annotated[float, number(float, 1, 604_800)] = 3_600.0
    #: Of silence, before a sign of life is sent: on streams of events by default, and on WebSockets.
    event_source_heartbeat: Annotated[int, number(int, 1, 120)] = 5
    web_socket_heartbeat: Annotated[float, number(float, 0.1, 600)] = 30.0
    #: That a client may take to read what is written to it, beside what its size allows.
    write_timeout: Annotated[float, number(float, 0.1, 600)] = 30.0
