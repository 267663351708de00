"""Query strings are read as the standard library reads them, or refused."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.queries import parse_query


def by_the_standard_library(raw: str) -> dict[str, list[str]] | None:
    """``None`` for what is refused."""
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:
        return None
    read: dict[str, list[str]] = {}
    for name, value in pairs:
        read.setdefault(name, []).append(value)
    nul = any("\x00" in name or "\x00" in value for name, value in pairs)
    return None if nul else read


def by_us(raw: str) -> dict[str, list[str]] | None:
    try:
        return parse_query(raw)
    except MatrixError:
        return None


pieces = st.sampled_from(["a", "b", "=", "&", "+", "%20", "%", "%4", "%00", "%FF", "%C3%A9", ";", "é", "/"])


@given(st.lists(pieces, max_size=12).map("".join))
@example("&".join(["a"] * 200))
@example("&".join(["a"] * 201))
@example("&" * 199)
@example("&" * 200)
def test_they_are_read_as_the_standard_library_reads_them(raw: str) -> None:
    assert by_us(raw) == by_the_standard_library(raw)


@pytest.mark.parametrize("raw", ["a=%FF", "%FF=a", "a=%00", "&" * 200])
def test_what_is_refused_is_the_callers_mistake(raw: str) -> None:
    with pytest.raises(MatrixError) as refused:
        parse_query(raw)
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
