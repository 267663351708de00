"""The grammar of Matrix identifiers and server names.

Answers whether a string is an identifier of a kind and takes identifiers apart.
It does not know which room version an identifier belongs to, nor whether what it
names exists.  Specification: appendices, "Identifier Grammar".
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

#: The longest identifier, in bytes of UTF-8, with its sigil and domain.
MAX_ID_BYTES = 255

# An IPv4 literal is in the grammar of DNS names too.
_SERVER_NAME = r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::(?P<port>[0-9]{1,5}))?"
_CHAR = r"[^:\x00\ud800-\udfff]"

_server_name = re.compile(_SERVER_NAME).fullmatch
_user_id = re.compile(rf"@{_CHAR}*:{_SERVER_NAME}").fullmatch
_room_alias = re.compile(rf"#{_CHAR}*:{_SERVER_NAME}").fullmatch
_room_id = re.compile(rf"!{_CHAR}+(?::{_SERVER_NAME})?").fullmatch
_event_id = re.compile(r"\$[^\x00\ud800-\udfff]+").fullmatch
_new_localpart = re.compile(r"[a-z0-9._=/+-]+").fullmatch


class ServerAddress(msgspec.Struct, frozen=True):
    """A server name taken apart; ``host`` of an IPv6 literal is without its brackets."""

    host: str
    port: int | None
    is_ip_literal: bool


def is_user_id(value: str) -> bool:
    """Whether this is a user id, by the grammar for historical ones that rooms still contain."""
    return _user_id(value) is not None and _fits(value)


def is_room_id(value: str) -> bool:
    """Whether this is a room id of some room version, with a domain (before v12) or without."""
    return _room_id(value) is not None and _fits(value)


def is_room_alias(value: str) -> bool:
    """Whether this is a room alias."""
    return _room_alias(value) is not None and _fits(value)


def is_event_id(value: str) -> bool:
    """Whether this is an event id of some room version."""
    if value.isascii():  # nearly all: what the pattern looks for is seen without it
        return 1 < len(value) <= MAX_ID_BYTES and value[0] == "$" and "\x00" not in value
    return _event_id(value) is not None and _fits(value)


def is_server_name(value: str) -> bool:
    """Whether this is in the grammar of server names, reachable or not."""
    return _server_name(value) is not None


def server_name_of(identifier: str) -> str:
    """The part after the first colon; ``ValueError`` when there is none."""
    _, colon, server_name = identifier.partition(":")
    if not colon:
        raise ValueError(f"{identifier!r} names no server")
    return server_name


def server_of(state_key: str) -> str:
    """The same; empty for what is no identifier, which old rooms allow where a user id belongs."""
    return state_key.partition(":")[2]


def localpart_of(identifier: str) -> str:
    """The part between the sigil and the first colon; ``ValueError`` when there is no colon."""
    localpart, colon, _ = identifier.partition(":")
    if not colon:
        raise ValueError(f"{identifier!r} names no server")
    return localpart[1:]


def validate_new_localpart(value: str) -> None:
    """Check the localpart of a user to be created, by the strict grammar.

    Raises ``ValueError`` with a sentence for the client.  Specification:
    appendices, "User Identifiers".
    """
    if not value:
        raise ValueError("The user name is empty")
    if _new_localpart(value) is None:
        raise ValueError("User names can only contain the characters a-z, 0-9 and ._=-/+")
    if len(value) > MAX_ID_BYTES:
        raise ValueError(f"User IDs cannot be longer than {MAX_ID_BYTES} bytes")


def parse_server_name(value: str) -> ServerAddress:
    """Take a server name apart for connecting to it.

    Raises ``ValueError`` outside the grammar, and for an IPv6 literal or a port that
    the grammar allows but no server can have.
    """
    match = _server_name(value)
    if match is None:
        raise ValueError(f"{value!r} is not a server name")
    host, digits = match["host"], match["port"]
    port = None if digits is None else int(digits)
    if port is not None and not 0 < port < 2**16:
        raise ValueError(f"{value!r} has a port out of range")
    if host.startswith("["):
        return ServerAddress(str(ipaddress.IPv6Address(host[1:-1])), port, is_ip_literal=True)
    return ServerAddress(host, port, is_ip_literal=_is_ipv4(host))


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _fits(value: str) -> bool:
    """Whether an identifier without surrogates is short enough."""
    return len(value) <= MAX_ID_BYTES and (value.isascii() or len(value.encode()) <= MAX_ID_BYTES)
