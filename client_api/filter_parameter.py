"""Filters given in the query string, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from homeserver.errors import invalid_param
from homeserver.protocol.filters import InvalidFilter

T = TypeVar("T")


def parse_filter(text: str, parse: Callable[[Any], T]) -> T:
    """A filter read by ``parse``; ``M_INVALID_PARAM`` for one that is none."""
    try:
        return parse(orjson.loads(text))
    except orjson.JSONDecodeError:
        raise invalid_param("The filter is not JSON") from None
    except InvalidFilter as error:
        raise invalid_param(str(error)) from None
