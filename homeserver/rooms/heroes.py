"""Who can stand for the name of a room that has none.

Specification: client-server API, "Calculating the display name for a room".
"""

from __future__ import annotations

from homeserver.rooms.room import Room
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Reader

MOST = 5


def is_named(room: Room) -> bool:
    """Whether the room has a name or an alias to go by."""
    name = room.state_event("m.room.name")
    alias = room.state_event("m.room.canonical_alias")
    return bool((name and name.content.get("name")) or (alias and alias.content.get("alias")))


async def heroes(r: Reader, room: Room, user_id: str) -> list[tuple[str, int]]:
    """``(user_id, event_nid)`` of up to five members but for ``user_id``: those present, else who was."""
    for memberships in (("join", "invite"), ("leave", "ban")):
        found: list[tuple[int, str]] = []
        for membership in memberships:
            members = await room_storage.members(r, room.nid, membership, MOST + 1)
            found += [(nid, member) for member, nid in members if member != user_id]
        if found:
            return [(member, nid) for nid, member in sorted(found)[:MOST]]
    return []
