"""A room as a homeserver made up by a test keeps it: no rules, only what its events say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.protocol.auth_rules import auth_types_for
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion


@dataclass
class OutsiderRoom:
    """State and timeline; whatever is added last is the only forward extremity."""

    rules: RoomVersion
    room_id: str
    state: dict[StateKey, Event] = field(default_factory=dict)
    timeline: list[Event] = field(default_factory=list)
    #: Every event that can be asked for, by its id.
    known: dict[str, Event] = field(default_factory=dict)

    @property
    def tip(self) -> Event:
        """What the next event builds on."""
        return self.timeline[-1]

    def add(self, *events: Event) -> None:
        """Put events on top of the room."""
        for event in events:
            self.known[event.event_id] = event
            self.timeline.append(event)
            if event.is_state:
                self.state[event.key] = event

    def learn(self, events: Iterable[Event]) -> None:
        """Events that belong to the room somewhere below its top."""
        self.known.update((event.event_id, event) for event in events)

    def event(self, type_: str, state_key: str = "") -> Event:
        """The state event of that key."""
        return self.state[type_, state_key]

    def membership(self, user_id: str) -> str | None:
        """A user's membership, as far as this server has heard."""
        member = self.state.get(("m.room.member", user_id))
        return None if member is None else str(member.content["membership"])

    def authorising(
        self, type_: str, sender: str, state_key: str | None, content: dict[str, Any]
    ) -> list[Event]:
        """The state that an event has to cite."""
        keys = auth_types_for(self.rules, type=type_, sender=sender, state_key=state_key, content=content)
        return [self.state[key] for key in keys if key in self.state]

    def auth_chain(self, events: Iterable[Event]) -> list[Event]:
        """The auth chains of events."""
        chain: dict[str, Event] = {}
        pending = [event_id for event in events for event_id in event.auth_events]
        while pending:
            event_id = pending.pop()
            if event_id not in chain:
                chain[event_id] = self.known[event_id]
                pending += self.known[event_id].auth_events
        return list(chain.values())


def pdus(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Events as they travel."""
    return [event.pdu for event in events]
