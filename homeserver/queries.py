"""Query strings, read strictly: text that is not UTF-8 or holds a NUL is refused."""

from __future__ import annotations

from urllib.parse import unquote

from homeserver.errors import invalid_param

#: More parameters than any endpoint of the specification could use.
_MAX_FIELDS = 200


def parse_query(raw_query: str) -> dict[str, list[str]]:
    """Every value of every parameter, in order.  Raises ``M_INVALID_PARAM``.

    Reads what ``urllib.parse.parse_qsl`` does, and decodes only what is encoded.
    """
    query: dict[str, list[str]] = {}
    if not raw_query:
        return query
    if raw_query.count("&") >= _MAX_FIELDS:
        raise invalid_param("The query string has too many parameters")
    _check_no_nul(raw_query)
    for pair in raw_query.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = _decoded(name), _decoded(value)
        if name in query:
            query[name].append(value)
        else:
            query[name] = [value]
    return query


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text.replace("+", " "), errors="strict")
    except ValueError:
        raise invalid_param("The query string is not valid UTF-8") from None
    _check_no_nul(decoded)
    return decoded


def _check_no_nul(text: str) -> None:
    if "\x00" in text:
        raise invalid_param("The query string holds a NUL character")
