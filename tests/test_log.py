"""The log: readable by people or machines, and never with a secret in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from homeserver.log import configure_logging, redact_secrets


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A place to log to; logging is put back afterwards, because it belongs to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_json_has_one_object_a_line(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)

    structlog.get_logger("homeserver.web").info("request", status=200)
    logging.getLogger("some.library").warning("slow %s", "peer")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["status"], first["level"]) == ("request", 200, "info")
    assert first["logger"] == "homeserver.web"
    assert (second["event"], second["level"]) == ("slow peer", "warning")


def test_what_is_below_the_level_is_left_out(stream: io.StringIO) -> None:
    configure_logging("warning", "console", stream)

    structlog.get_logger("homeserver").info("quiet")
    structlog.get_logger("homeserver").error("loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_an_exception_keeps_its_traceback(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    try:
        raise ZeroDivisionError("of a kind")
    except ZeroDivisionError:
        structlog.get_logger("homeserver").exception("broken")

    assert "ZeroDivisionError: of a kind" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "hunter2"},
        {"Access_Token": "hunter2"},
        {"body": {"auth": {"password": "hunter2"}}},
        {"headers": [{"Authorization": "Bearer hunter2"}]},
        {"path": "/_matrix/client/v3/sync?access_token=hunter2&since=s1"},
        {"line": "Authorization: Bearer hunter2"},
        {"event": "connect postgresql://me:hunter2@db/inglenook failed"},
        {"event": 'body {"password": "hunter2"}'},
    ],
)
def test_secrets_are_taken_out(fields: dict[str, Any]) -> None:
    assert "hunter2" not in repr(redact_secrets(None, "info", fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "password changed", "user_id": "@alice:example.org"},
        {"path": "/_matrix/client/v3/sync?since=s1", "password": None},
        {"url": "https://example.org:8448/_matrix/key/v2/server"},
    ],
)
def test_the_rest_is_left_alone(fields: dict[str, Any]) -> None:
    assert redact_secrets(None, "info", dict(fields)) == fields


def test_secrets_are_taken_out_of_tracebacks_too(stream: io.StringIO) -> None:
    configure_logging("info", "console", stream)
    try:
        raise ValueError("cannot open postgresql://me:hunter2@db/inglenook")
    except ValueError:
        structlog.get_logger("homeserver").exception("broken")

    assert "hunter2" not in stream.getvalue()
    assert "cannot open" in stream.getvalue()
