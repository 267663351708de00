"""A room's states worked out naively: whole maps, resolved anew at every event."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.state_res import resolve

#: A room's state as event ids.
State: TypeAlias = dict[StateKey, str]


@dataclass
class Replay:
    """What is known of a room so far; those who use it say how an event is taken in."""

    rules: RoomVersion
    events: dict[str, Event] = field(default_factory=dict)
    before: dict[str, State] = field(default_factory=dict)
    after: dict[str, State] = field(default_factory=dict)
    tips: set[str] = field(default_factory=set)
    current: State = field(default_factory=dict)

    def resolved(self, event_ids: Collection[str]) -> State:
        """The resolution of the states after some events."""
        states = [self.after[event_id] for event_id in sorted(event_ids)]
        return resolve(self.rules, states, self.events) if states else {}
