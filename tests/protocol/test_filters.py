"""What a filter lets through, what it keeps of an event, and what it refuses to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.filters import EventFilter, Filter, InvalidFilter, RoomEventFilter, project_fields
from homeserver.protocol.property_paths import parse_property_path

ALICE = "@alice:example.org"
ROOM = "!room:example.org"


def project(event: dict[str, Any], *paths: str) -> dict[str, Any]:
    return project_fields(event, [parse_property_path(path) for path in paths])


@pytest.mark.parametrize(
    ("definition", "event_type", "allowed"),
    [
        ({}, "m.room.message", True),
        ({"types": []}, "m.room.message", False),
        ({"types": ["m.room.message"]}, "m.room.message", True),
        ({"types": ["m.room.*"]}, "m.room.member", True),
        ({"types": ["m.room.*"]}, "m.reaction", False),
        ({"types": ["*.message"]}, "m.room.message", True),
        ({"types": ["m.room?message"]}, "m.room.message", False),
        ({"not_types": ["m.*"]}, "m.room.message", False),
        ({"types": ["m.room.message"], "not_types": ["m.room.message"]}, "m.room.message", False),
        ({"not_types": []}, "m.room.message", True),
        ({"not_types": ["*"]}, "anything", False),
        ({"senders": [ALICE]}, "m.room.message", True),
        ({"senders": []}, "m.room.message", False),
        ({"senders": [ALICE], "not_senders": [ALICE]}, "m.room.message", False),
        ({"senders": ["@bob:example.org"]}, "m.room.message", False),
    ],
)
def test_types_and_senders(definition: dict[str, Any], event_type: str, allowed: bool) -> None:
    assert EventFilter.parse(definition).allows(event_type, ALICE) is allowed


@pytest.mark.parametrize(
    ("definition", "nothing"),
    [
        ({}, False),
        ({"types": []}, True),
        ({"senders": []}, True),
        ({"not_types": ["*"]}, True),
        ({"not_types": ["m.*"]}, False),
        ({"limit": 0}, True),
        ({"limit": 1, "types": ["a"]}, False),
    ],
)
def test_a_filter_knows_when_nothing_can_pass(definition: dict[str, Any], nothing: bool) -> None:
    assert EventFilter.parse(definition).allows_nothing is nothing


@pytest.mark.parametrize(
    ("definition", "content", "allowed"),
    [
        ({}, {}, True),
        ({"contains_url": True}, {"url": "mxc://a/b"}, True),
        ({"contains_url": True}, {}, False),
        ({"contains_url": False}, {"url": None}, False),
        ({"contains_url": False}, {}, True),
        ({"rooms": [ROOM]}, {}, True),
        ({"rooms": []}, {}, False),
        ({"not_rooms": [ROOM]}, {}, False),
        ({"rooms": [ROOM], "not_rooms": [ROOM]}, {}, False),
        ({"types": ["m.other"]}, {}, False),
    ],
)
def test_rooms_and_urls(definition: dict[str, Any], content: dict[str, Any], allowed: bool) -> None:
    parsed = RoomEventFilter.parse(definition)
    assert parsed.allows_event("m.room.message", ALICE, ROOM, content) is allowed
    assert parsed.allows_event("m.room.message", ALICE, ROOM, lambda: content) is allowed


def test_content_is_not_decoded_when_no_one_asks_for_it() -> None:
    def content() -> dict[str, Any]:
        raise AssertionError("looked at")

    assert RoomEventFilter.parse({"types": ["m.*"]}).allows_event("m.a", ALICE, ROOM, content)


def test_the_whole_filter() -> None:
    parsed = Filter.parse(
        {
            "event_fields": ["type", r"content.m\.relates_to"],
            "event_format": "federation",
            "presence": {"not_types": ["*"]},
            "account_data": {"types": ["m.push_rules"]},
            "room": {
                "rooms": [ROOM],
                "include_leave": True,
                "timeline": {"limit": 10, "unread_thread_notifications": True},
                "state": {"lazy_load_members": True, "include_redundant_members": True},
                "ephemeral": {"types": []},
                "account_data": {"not_types": ["m.tag"]},
            },
            "org.example.unknown": 1,
        }
    )
    assert parsed.event_fields == (("type",), ("content", "m.relates_to"))
    assert parsed.event_format == "federation"
    assert parsed.presence.allows_nothing
    assert parsed.account_data.allows("m.push_rules")
    assert not parsed.account_data.allows("m.direct")
    assert parsed.room.allows_room(ROOM)
    assert not parsed.room.allows_room("!other:example.org")
    assert parsed.room.include_leave
    assert parsed.room.timeline.limit == 10
    assert parsed.room.timeline.unread_thread_notifications
    assert parsed.room.state.lazy_load_members
    assert parsed.room.state.include_redundant_members
    assert parsed.room.ephemeral.allows_nothing
    assert not parsed.room.account_data.allows("m.tag")


def test_an_empty_filter_lets_everything_through() -> None:
    assert Filter.parse({}) == Filter()


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        ([], "filter"),
        ({"room": []}, "room"),
        ({"room": {"timeline": 1}}, "room.timeline"),
        ({"room": {"timeline": {"limit": "10"}}}, "limit"),
        ({"room": {"timeline": {"limit": -1}}}, "limit"),
        ({"room": {"timeline": {"limit": True}}}, "limit"),
        ({"room": {"include_leave": 1}}, "include_leave"),
        ({"room": {"state": {"lazy_load_members": "yes"}}}, "lazy_load_members"),
        ({"room": {"rooms": ["#alias:example.org"]}}, "rooms"),
        ({"presence": {"senders": ["alice"]}}, "senders"),
        ({"presence": {"types": [1]}}, "types"),
        ({"event_fields": "type"}, "event_fields"),
        ({"event_format": "xml"}, "event_format"),
        ({"event_format": []}, "event_format"),
    ],
)
def test_a_wrong_filter_is_refused_by_name(definition: Any, field: str) -> None:
    with pytest.raises(InvalidFilter, match=f"'{field}'"):
        Filter.parse(definition)


EVENT: dict[str, Any] = {
    "type": "m.room.message",
    "content": {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "event_id": "$e"}, "nothing": None},
    "sender": ALICE,
}


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        ((), {}),
        (("type",), {"type": "m.room.message"}),
        (("content.body",), {"content": {"body": "hi"}}),
        (("content.nothing",), {"content": {"nothing": None}}),
        ((r"content.m\.relates_to.rel_type",), {"content": {"m.relates_to": {"rel_type": "m.thread"}}}),
        (("content.m.relates_to",), {}),
        (("content.body", "content"), {"content": EVENT["content"]}),
        (("content", r"content.m\.relates_to.rel_type"), {"content": EVENT["content"]}),
        (("sender.deeper", "absent"), {}),
    ],
)
def test_event_fields(paths: tuple[str, ...], kept: dict[str, Any]) -> None:
    assert project(EVENT, *paths) == kept


def test_projecting_leaves_the_event_as_it_was() -> None:
    event: dict[str, Any] = {"content": {"a": {"b": 1, "c": 2}}}
    assert project(event, "content.a.b", "content.a.c") == event
    project(event, "content")["extra"] = 1
    assert event == {"content": {"a": {"b": 1, "c": 2}}}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", r"m\foo")),
        (r"content.\x", ("content", r"\x")),
        ("", ("",)),
        ("a..b", ("a", "", "b")),
        ("a\\", ("a\\",)),
    ],
)
def test_property_paths(path: str, names: tuple[str, ...]) -> None:
    assert parse_property_path(path) == names


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_escaped_names_survive_a_path(names: list[str]) -> None:
    path = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert parse_property_path(path) == tuple(names)
