"""Query strings, read strictly: text that is not UTF-8 or holds a NUL is refused."""

from __future__ import annotations

from urllib.parse import parse_qsl

from homeserver.errors import invalid_param

#: More parameters than any endpoint of the specification could use.
_MAX_FIELDS = 200


def parse_query(raw_query: str) -> dict[str, list[str]]:
    """Every value of every parameter, in order.  Raises ``M_INVALID_PARAM``."""
    if not raw_query:
        return {}
    try:
        pairs = parse_qsl(raw_query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise invalid_param("The query string is not valid UTF-8, or has too many parameters") from None
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        if "\x00" in name or "\x00" in value:
            raise invalid_param("The query string holds a NUL character")
        query.setdefault(name, []).append(value)
    return query
