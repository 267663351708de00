"""What the server says while it works: structured lines on standard error, free of secrets.

Libraries that log through ``logging`` (aiohttp, asyncio) come out the same way.
Secrets are taken out here as the last thing before a line is written; a caller
should all the same not hand any in.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

_REDACTED = "(redacted)"

_SECRET_KEYS = frozenset(
    {
        "access_token",
        "auth",
        "authorization",
        "cookie",
        "login_token",
        "mac",
        "new_password",
        "password",
        "password_hash",
        "refresh_token",
        "registration_token",
        "secret",
        "seed",
        "signing_key",
        "token",
    }
)

_SECRETS_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"((?:access|refresh|login)_token|password)([\"']?\s*[=:]\s*[\"']?)[^\s&\"',}]+", re.I),
        r"\1\2",
    ),
    (re.compile(r"\b(Bearer\s+)[^\s\"',]+", re.I), r"\1"),
    (re.compile(r"(\w+://[^\s:/@]*:)[^\s@/]+(?=@)"), r"\1"),
)


def configure_logging(
    level: Literal["debug", "info", "warning", "error"],
    format: Literal["console", "json"],
    stream: TextIO | None = None,
) -> None:
    """Send everything logged from now on to ``stream`` (standard error)."""
    stream = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    output = logging.StreamHandler(stream)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact_secrets,
                _renderer(format, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def redact_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what is secret by its key, at any depth, or by its look inside a text."""
    for key, value in event.items():
        event[key] = _without_secrets(key, value)
    return event


def _without_secrets(key: str, value: Any) -> Any:
    if key.lower() in _SECRET_KEYS and value is not None:
        return _REDACTED
    if isinstance(value, dict):
        return {inner: _without_secrets(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets("", item) for item in value]
    if isinstance(value, str):
        for pattern, kept in _SECRETS_IN_TEXT:
            value = pattern.sub(kept + _REDACTED, value)
    return value


def _renderer(format: Literal["console", "json"], stream: TextIO) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(default=repr)
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())
