"""Spaces: which rooms a space holds, and in which order they stand.

Specification: client-server API, "Spaces".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from homeserver.protocol.ids import is_room_id, is_server_name

SPACE = "m.space"
CHILD = "m.space.child"

#: Printable ASCII, at most fifty characters of it; any other ``order`` counts as none.
_order = re.compile(r"[\x20-\x7e]{1,50}").fullmatch


def children_in_order(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The valid ``m.space.child`` events among some, as clients are to show them.

    An event is a mapping with ``type``, ``state_key``, ``content`` and ``origin_server_ts``.
    It is valid when it names a room and servers to reach it by.  Specification:
    "Ordering of children within a space".
    """
    return sorted((event for event in events if _is_child(event)), key=_place)


def servers_of(child: Mapping[str, Any]) -> list[str]:
    """The servers a child event names, as far as they are server names."""
    via = child["content"].get("via")
    return [name for name in via if isinstance(name, str) and is_server_name(name)]


def is_suggested(child: Mapping[str, Any]) -> bool:
    """Whether the space recommends the child."""
    return child["content"].get("suggested") is True


def _is_child(event: Mapping[str, Any]) -> bool:
    content, room_id, ts = event.get("content"), event.get("state_key"), event.get("origin_server_ts")
    if event.get("type") != CHILD or not isinstance(content, Mapping) or not isinstance(ts, int):
        return False
    via = content.get("via")
    return isinstance(room_id, str) and is_room_id(room_id) and isinstance(via, list) and bool(via)


def _place(child: Mapping[str, Any]) -> tuple[bool, str, int, str]:
    order = child["content"].get("order")
    valid = isinstance(order, str) and _order(order) is not None
    return (not valid, order if valid else "", child["origin_server_ts"], child["state_key"])
