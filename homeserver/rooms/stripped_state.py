"""Which of a room's state events tell somebody outside what room it is.

Specification: client-server API, "Stripped state".
"""

from __future__ import annotations

from homeserver.protocol.events import Event
from homeserver.rooms.room import Room

_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)


def identifying_state(room: Room) -> list[Event]:
    """The events of the current state that invites and knocks carry, ``m.room.create`` first.

    Clients are shown them stripped (``event_format.stripped``), servers are sent the PDUs.
    """
    return [event for type_ in _TYPES if (event := room.state_event(type_)) is not None]
