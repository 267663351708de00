"""Which servers a room's ``m.room.server_acl`` lets take part.

Specification: client-server API, "Server Access Control Lists (ACLs) for rooms".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from homeserver.errors import forbidden
from homeserver.protocol.events import Event
from homeserver.protocol.globs import glob_matches
from homeserver.protocol.ids import parse_server_name
from homeserver.rooms.room import Room

_PORT = re.compile(r":[0-9]+$")


def acl_allows(content: Mapping[str, Any] | None, server_name: str) -> bool:
    """Whether the ACL with this content lets a server in.

    1. Without an ACL everybody may take part.
    2. IP addresses may be denied as such.
    3. ``deny`` comes before 4. ``allow``; 5. who is in neither is denied.
    """
    # 1
    if content is None:
        return True
    # 2
    if content.get("allow_ip_literals") is False and _is_ip_literal(server_name):
        return False
    host = _PORT.sub("", server_name).lower()
    # 3
    if _matches_one(content.get("deny"), host):
        return False
    # 4, 5
    return _matches_one(content.get("allow"), host)


def may_take_part(room: Room, server_name: str) -> bool:
    """Whether the room's ACL lets a server in."""
    event = room.state_event("m.room.server_acl")
    return event is None or _allows(event, server_name)


def check_may_take_part(room: Room, server_name: str) -> None:
    """Raises ``M_FORBIDDEN`` for a server the room's ACL does not let in."""
    if not may_take_part(room, server_name):
        raise forbidden("The room's access list does not let your server take part")


@lru_cache(maxsize=4096)
def _allows(event: Event, server_name: str) -> bool:
    """Remembered by the event's identity: every PDU and EDU for a room asks."""
    return acl_allows(event.content, server_name)


def _matches_one(patterns: object, host: str) -> bool:
    if not isinstance(patterns, list):
        return False
    return any(isinstance(pattern, str) and glob_matches(pattern.lower(), host) for pattern in patterns)


def _is_ip_literal(server_name: str) -> bool:
    try:
        return parse_server_name(server_name).is_ip_literal
    except ValueError:
        return True
