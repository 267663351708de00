"""Which servers may be in a room that this one is not in, or no longer."""

from __future__ import annotations

import msgspec

from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.room import Room
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Reader
from homeserver.storage.rooms import LocalMembership


async def servers_that_know(r: Reader, user_id: str, room_id: str, room: Room | None) -> list[str]:
    """Servers to ask about a room, the likeliest first, without repetition.

    Those that the user's invite or knock speaks of, those known to have members in it, and
    the one whose name is in the room id.
    """
    found = await servers_spoken_of(r, user_id, room)
    if room is not None:
        found += room.servers
    if ":" in room_id:
        found.append(server_name_of(room_id))
    return list(dict.fromkeys(found))


async def servers_spoken_of(r: Reader, user_id: str, room: Room | None) -> list[str]:
    """Those that the user's invite or knock speaks of."""
    if room is None:
        return []
    known = await room_storage.local_membership(r, user_id, room.nid)
    return list(dict.fromkeys(server_name_of(user) for user in _users_spoken_of(known)))


def _users_spoken_of(known: LocalMembership | None) -> list[str]:
    """Who sent an invite, and the state that came with it or with the answer to a knock."""
    if known is None or known.membership not in {"invite", "knock"}:
        return []
    events = msgspec.json.decode(known.stripped_state) if known.stripped_state else []
    senders = [event.get("sender") for event in events if isinstance(event, dict)]
    return [known.sender, *(sender for sender in senders if isinstance(sender, str) and is_user_id(sender))]
