"""Dot-separated property paths: how push rules and filters name part of an event.

Specification: appendices, "Dot-separated property paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

#: What ``look_up`` answers for a path that leads nowhere (``None`` is a JSON value).
ABSENT: Final = object()

#: An escaped dot or backslash, any other character, or the dot that separates.
_PART = re.compile(r"\\([.\\])|([^.])|(\.)", re.DOTALL)


@lru_cache(maxsize=2048)
def parse_property_path(path: str) -> tuple[str, ...]:
    r"""The property names of a path: ``content.m\.relates_to`` is ``("content", "m.relates_to")``.

    A backslash before anything but a dot or a backslash stands for itself.
    """
    names: list[str] = []
    name: list[str] = []
    for escaped, plain, separator in _PART.findall(path):
        if separator:
            names.append("".join(name))
            name = []
        else:
            name.append(escaped or plain)
    return (*names, "".join(name))


def look_up(value: Any, names: tuple[str, ...]) -> Any:
    """The value at the end of a parsed path, or ``ABSENT``."""
    for name in names:
        if not isinstance(value, Mapping):
            return ABSENT
        value = value.get(name, ABSENT)
    return value
