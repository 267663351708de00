"""Requests that no server should grant, as tables: what is wrong with each, and the specification's answer.

Paths are below ``/_matrix/client/v3`` unless they begin with ``/_matrix`` or ``/.``.  ``$name`` in a
path or a body stands for something of the town that the requests are made in (``tests/flows/town.py``);
``$$`` is a dollar sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Answers that several rows share: "status errcode", and the status alone for a reply without errcode.
NOT_JSON = ("400 M_NOT_JSON",)
BAD_JSON = ("400 M_BAD_JSON",)
#: A field of the wrong type or with a value it cannot have.
WRONG_VALUE = ("400 M_BAD_JSON", "400 M_INVALID_PARAM")
MISSING = ("400 M_MISSING_PARAM", "400 M_BAD_JSON")
BAD_QUERY = ("400 M_INVALID_PARAM",)
FORBIDDEN = ("403 M_FORBIDDEN",)
NOT_FOUND = ("404 M_NOT_FOUND",)
#: Whether a room exists is not everybody's to know.
UNKNOWN_ROOM = ("404 M_NOT_FOUND", "403 M_FORBIDDEN")
TOO_LARGE = ("413 M_TOO_LARGE",)
NO_SUCH_PATH = ("404 M_UNRECOGNIZED",)
NO_SUCH_METHOD = ("405 M_UNRECOGNIZED",)


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad request.  ``body`` is a JSON value, or bytes that are sent as they are."""

    what: str
    request: str
    answers: tuple[str, ...]
    body: Any = None
    #: Who asks: somebody of the town by name; "" is nobody.
    by: str = "alice"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.request}: {self.what}"


def bad(
    what: str,
    request: str,
    *answers: str,
    body: Any = None,
    by: str = "alice",
    headers: Mapping[str, str] | None = None,
) -> Bad:
    """A row of a table; ``answers`` are those that the specification leaves the choice of."""
    return Bad(what, request, answers, body, by, headers or {})
