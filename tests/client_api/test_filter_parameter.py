"""Filters in the query string: read once for all clients that send the same."""

from __future__ import annotations

import pytest

from client_api.filter_parameter import parse_filter
from homeserver.errors import MatrixError
from homeserver.protocol.filters import Filter, RoomEventFilter

LAZY = '{"room":{"state":{"lazy_load_members":true}},"presence":{"types":[]}}'


def test_clients_that_send_the_same_filter_share_what_was_read() -> None:
    assert parse_filter(LAZY, Filter.parse) is parse_filter(LAZY, Filter.parse)


def test_the_same_text_is_another_filter_where_it_means_something_else() -> None:
    whole, of_events = parse_filter("{}", Filter.parse), parse_filter("{}", RoomEventFilter.parse)

    assert isinstance(whole, Filter)
    assert isinstance(of_events, RoomEventFilter)


def test_a_long_filter_is_read_each_time() -> None:
    rooms = ",".join(f'"!room{number}:a.org"' for number in range(100))
    long = f'{{"room":{{"rooms":[{rooms}]}}}}'

    first, second = parse_filter(long, Filter.parse), parse_filter(long, Filter.parse)

    assert first == second
    assert first is not second


@pytest.mark.parametrize("wrong", ["{", "[]", '{"room":3}'])
def test_what_is_no_filter_is_refused_each_time(wrong: str) -> None:
    for _ in range(2):
        with pytest.raises(MatrixError) as refused:
            parse_filter(wrong, Filter.parse)
        assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
