"""The order of a space's children, and which of them count."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.spaces import children_in_order, is_suggested, servers_of


def child(room_id: Any, ts: Any = 1, **content: Any) -> dict[str, Any]:
    given = {"via": ["a.example"], **content}
    return {"type": "m.space.child", "state_key": room_id, "content": given, "origin_server_ts": ts}


def rooms(events: list[dict[str, Any]]) -> list[str]:
    return [event["state_key"] for event in children_in_order(events)]


def test_children_stand_as_the_specification_has_them() -> None:
    events = [
        child("!d:a.example", 1640741000000),
        child("!b:a.example", 1640341000000, order=" "),
        child("!e:a.example", 1640641000000),
        child("!a:a.example", 1640141000000, order="aaaa"),
        child("!c:a.example", 1640841000000, order="first"),
    ]
    assert rooms(events) == [f"!{name}:a.example" for name in "baced"]


def test_equal_orders_go_by_time_and_then_by_room() -> None:
    events = [
        child("!c:x", 2, order="o"),
        child("!b:x", 1, order="o"),
        child("!a:x", 1, order="o"),
        child("!z:x", 5),
        child("!y:x", 5),
    ]
    assert rooms(events) == ["!a:x", "!b:x", "!c:x", "!y:x", "!z:x"]


def test_an_order_that_is_none_counts_for_nothing() -> None:
    events = [child("!bad:x", 1, order=order) for order in ("", "é", "a" * 51, "\n", 3, None)]
    assert rooms([*events, child("!good:x", 9, order="z")])[0] == "!good:x"


def test_what_is_no_child_is_left_out() -> None:
    broken = [
        child("not a room"),
        child("!a:x", via=[]),
        child("!a:x", via="a.example"),
        child("!a:x", "late"),
        {**child("!a:x"), "content": 1},
        {**child("!a:x"), "type": "m.space.parent"},
        {"type": "m.space.child", "state_key": "!a:x", "content": {}, "origin_server_ts": 1},
    ]
    assert rooms(broken) == []


def test_servers_are_server_names() -> None:
    assert servers_of(child("!a:x", via=["a.example", 1, "no name", "b.example:1"])) == [
        "a.example",
        "b.example:1",
    ]
    assert is_suggested(child("!a:x", suggested=True))
    assert not is_suggested(child("!a:x", suggested="yes"))


words = st.text("ab ~é", max_size=3)
anything = st.none() | st.booleans() | st.integers() | words | st.lists(words, max_size=3)
events_of_any_kind = st.lists(
    st.builds(
        lambda room_id, content, ts: {
            "type": "m.space.child",
            "state_key": room_id,
            "content": content,
            "origin_server_ts": ts,
        },
        st.sampled_from(["!a:x", "!b:x", "!c:x", "none"]),
        st.dictionaries(st.sampled_from(["via", "order", "suggested"]), anything) | anything,
        st.integers(0, 3) | words,
    ),
    max_size=6,
)


@given(events_of_any_kind)
def test_any_events_can_be_put_in_order(events: list[dict[str, Any]]) -> None:
    ordered = rooms(events)
    assert rooms(events[::-1]) == ordered
    assert set(ordered) <= {"!a:x", "!b:x", "!c:x"}
