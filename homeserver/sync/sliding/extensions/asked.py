"""What clients may ask of extensions, checked: limits, switches, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.errors import bad_json, invalid_param


def limit_in(asked: Mapping[str, Any], most: int) -> int:
    """How much is to be told at once: ``most`` if unsaid, and never more.

    ``M_BAD_JSON`` for what is no whole number, ``M_INVALID_PARAM`` for one below 1.
    """
    limit = asked.get("limit")
    if limit is None:
        return most
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise bad_json("'limit' of an extension must be a whole number")
    if limit < 1:
        raise invalid_param("'limit' of an extension must be at least 1")
    return min(limit, most)


def switch_in(asked: Mapping[str, Any], name: str) -> bool:
    """Whether something is switched on; ``M_BAD_JSON`` for what is neither true nor false."""
    value = asked.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_json(f"'{name}' of an extension must be true or false")
    return value is True


def text_in(asked: Mapping[str, Any], name: str) -> str | None:
    """A string, if there is one; ``M_BAD_JSON`` for anything else."""
    value = asked.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_json(f"'{name}' of an extension must be a string")
    return value
