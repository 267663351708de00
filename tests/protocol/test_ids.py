import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.ids import (
    ServerAddress,
    is_event_id,
    is_room_alias,
    is_room_id,
    is_server_name,
    is_user_id,
    localpart_of,
    parse_server_name,
    server_name_of,
    validate_new_localpart,
)


@pytest.mark.parametrize(
    "server_name",
    [
        "matrix.org",
        "matrix.org:8888",
        "1.2.3.4",
        "1.2.3.4:1234",
        "[1234:5678::abcd]",
        "[1234:5678::abcd]:5678",
        "localhost",
        "MATRIX.org",
    ],
)
def test_server_names_of_the_specification(server_name: str) -> None:
    assert is_server_name(server_name)
    assert is_user_id(f"@alice:{server_name}")
    assert is_room_alias(f"#tea:{server_name}")
    assert is_room_id(f"!abc:{server_name}")


@pytest.mark.parametrize(
    "server_name",
    [
        "",
        ":80",
        "a b",
        "ex_ample.org",
        "example.org:",
        "example.org:123456",
        "é.org",
        "[::1",
        "::1",
        "a\n",
        "a/b",
    ],
)
def test_what_is_no_server_name(server_name: str) -> None:
    assert not is_server_name(server_name)
    assert not is_user_id(f"@alice:{server_name}")


def test_server_name_taken_apart() -> None:
    assert parse_server_name("matrix.org") == ServerAddress("matrix.org", None, is_ip_literal=False)
    assert parse_server_name("matrix.org:8448") == ServerAddress("matrix.org", 8448, is_ip_literal=False)
    assert parse_server_name("1.2.3.4:1") == ServerAddress("1.2.3.4", 1, is_ip_literal=True)
    assert parse_server_name("[::1]:5678") == ServerAddress("::1", 5678, is_ip_literal=True)
    assert not parse_server_name("1.2.3.400").is_ip_literal


@pytest.mark.parametrize(
    "server_name", ["", "a b", "example.org:0", "example.org:65536", "[:::]", "[12345::]"]
)
def test_server_name_that_cannot_be_connected_to(server_name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_server_name(server_name)


@pytest.mark.parametrize(
    "user_id", ["@:example.org", "@Älice Ö!:example.org", "@a/b=c:example.org", "@a\n:b"]
)
def test_historical_user_ids_are_accepted(user_id: str) -> None:
    assert is_user_id(user_id)


@pytest.mark.parametrize(
    "user_id",
    ["", "@", "@alice", "alice:example.org", "!a:b", "@a\x00b:example.org", "@a\ud800:b", "@a:b:c:d"],
)
def test_what_is_no_user_id(user_id: str) -> None:
    assert not is_user_id(user_id)


def test_length_is_counted_in_bytes() -> None:
    assert is_user_id("@" + "a" * 252 + ":b")
    assert not is_user_id("@" + "a" * 253 + ":b")
    assert is_user_id("@" + "é" * 126 + ":b")
    assert not is_user_id("@" + "é" * 127 + ":b")


def test_room_and_event_ids_with_and_without_a_domain() -> None:
    assert is_room_id("!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ")
    assert is_event_id("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk")
    assert is_event_id("$143273582443PhrSn:example.org")
    assert not is_room_id("!")
    assert not is_room_id("!a:not a domain")
    assert not is_event_id("$")
    assert not is_event_id("$" + "a" * 255)


def test_identifier_taken_apart_at_the_first_colon() -> None:
    assert localpart_of("@alice:example.org:8448") == "alice"
    assert server_name_of("@alice:example.org:8448") == "example.org:8448"
    for part in (localpart_of, server_name_of):
        with pytest.raises(ValueError, match="names no server"):
            part("$hash")


def test_new_localparts_are_held_to_the_strict_grammar() -> None:
    validate_new_localpart("alice._=/+-09")
    for bad in ("", "Alice", "älice", "a b", "a:b", "a\n", "a" * 256):
        with pytest.raises(ValueError, match=r"^[A-Z].+"):
            validate_new_localpart(bad)


@given(st.text())
def test_any_text_is_judged_and_only_ids_are_taken_apart(text: str) -> None:
    is_room_id(text), is_event_id(text), is_room_alias(text), is_server_name(text)
    if is_user_id("@" + text):
        assert f"@{localpart_of('@' + text)}:{server_name_of('@' + text)}" == "@" + text
