"""A room's states worked out naively: whole maps, resolved anew at every event."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from homeserver.protocol.auth_rules import NotAllowed, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion, StateResolution
from homeserver.protocol.state_res import resolve
from tests.protocol.reference_state_res import Reference

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
    #: Rejected and soft-failed events.
    hidden: set[str] = field(default_factory=set)

    def replaced_by(self, event: Event) -> set[str]:
        """The events whose place as extremities an event takes: what is behind it down to accepted ones."""
        replaced: set[str] = set()
        pending = list(event.prev_events)
        while pending:
            event_id = pending.pop()
            if event_id not in replaced:
                replaced.add(event_id)
                pending += self.events[event_id].prev_events if event_id in self.hidden else ()
        return replaced

    def allows(self, event: Event, state: State) -> bool:
        """Whether the state allows the event."""

        def lookup(type_: str, key: str) -> Event | None:
            return self.events.get(state.get((type_, key), ""))

        try:
            check_against_state(self.rules, event, lookup)
        except NotAllowed:
            return False
        return True

    def resolved(self, event_ids: Collection[str]) -> State:
        """The resolution of the states after some events, as the specification words it."""
        states = [self.after[event_id] for event_id in sorted(event_ids)]
        if not states or self.rules.state_resolution is StateResolution.V1:
            return resolve(self.rules, states, self.events) if states else {}
        return dict(Reference(self.rules, states, self.events).resolve())
