"""Filters given in the query string, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from homeserver.errors import invalid_param
from homeserver.protocol.filters import InvalidFilter

T = TypeVar("T")

#: Filters that are kept, and how many characters each may have: clients of one kind send the same,
#: and each holds what was read of it for as long as it waits.
_REMEMBERED = 200
_LONGEST_REMEMBERED = 1_000


def parse_filter(text: str, parse: Callable[[Any], T]) -> T:
    """A filter read by ``parse``; ``M_INVALID_PARAM`` for one that is none."""
    read: Callable[[str, Callable[[Any], T]], T] = _read
    if len(text) <= _LONGEST_REMEMBERED:
        read = _read_or_remember
    try:
        return read(text, parse)
    except orjson.JSONDecodeError:
        raise invalid_param("The filter is not JSON") from None
    except InvalidFilter as error:
        raise invalid_param(str(error)) from None


def _read(text: str, parse: Callable[[Any], T]) -> T:
    return parse(orjson.loads(text))


_read_or_remember = lru_cache(_REMEMBERED)(_read)
