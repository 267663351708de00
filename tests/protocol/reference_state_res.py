"""State resolution v2 and v2.1 as the specification words it: slow, literal, for comparison.

Every definition of "State resolution" is one function over sets, in the specification's
order.  It shares the auth rules with the real one, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from homeserver.protocol.auth_rules import NotAllowed, StateLookup, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.power_levels import PowerLevels, creators_of
from homeserver.protocol.room_versions import RoomVersion, StateResolution

State = Mapping[StateKey, str]


class Reference:
    """One resolution: of these states, among these events."""

    def __init__(self, rules: RoomVersion, states: Sequence[State], events: Mapping[str, Event]) -> None:
        self.rules = rules
        self.states = states
        self.events = events
        self.auth_chains: dict[str, set[str]] = {}
        self.is_v2_1 = rules.state_resolution is StateResolution.V2_1

    def resolve(self) -> dict[StateKey, str]:
        """The algorithm."""
        full_conflicted = self.full_conflicted_set()
        # 1
        x = {event_id for event_id in full_conflicted if self.is_power_event(event_id)}
        for event_id in set(x):
            x |= self.auth_chain(event_id) & full_conflicted
        in_power_order = self.reverse_topological_power_ordering(x)
        # 2
        start = {} if self.is_v2_1 else self.unconflicted_state_map()
        partial = self.iterative_auth_checks(start, in_power_order)
        # 3
        power_levels = partial.get(("m.room.power_levels", ""))
        in_mainline_order = self.mainline_ordering(power_levels, full_conflicted - x)
        # 4
        resolved = self.iterative_auth_checks(partial, in_mainline_order)
        # 5
        return {**resolved, **self.unconflicted_state_map()}

    def is_power_event(self, event_id: str) -> bool:
        event = self.events[event_id]
        if event.type in ("m.room.power_levels", "m.room.join_rules"):
            return True
        return (
            event.type == "m.room.member"
            and event.content.get("membership") in ("leave", "ban")
            and event.sender != event.state_key
        )

    def unconflicted_state_map(self) -> dict[StateKey, str]:
        keys = {key for state in self.states for key in state}
        return {
            key: self.states[0][key]
            for key in keys
            if all(key in state and state[key] == self.states[0].get(key) for state in self.states)
        }

    def conflicted_state_set(self) -> set[str]:
        unconflicted = self.unconflicted_state_map()
        return {value for state in self.states for key, value in state.items() if key not in unconflicted}

    def auth_chain(self, event_id: str) -> set[str]:
        if event_id not in self.auth_chains:
            cited = set(self.events[event_id].auth_events)
            self.auth_chains[event_id] = cited.union(*(self.auth_chain(auth_id) for auth_id in cited))
        return self.auth_chains[event_id]

    def full_auth_chain(self, state: State) -> set[str]:
        # With the state's own events, as other servers have it (tests/interop/test_partitions.py).
        return set(state.values()).union(*(self.auth_chain(event_id) for event_id in state.values()))

    def auth_difference(self) -> set[str]:
        chains = [self.full_auth_chain(state) for state in self.states]
        return set[str]().union(*chains) - chains[0].intersection(*chains[1:])

    def conflicted_state_subgraph(self) -> set[str]:
        conflicted = self.conflicted_state_set()
        return conflicted | {
            between
            for upper in conflicted
            for between in self.auth_chain(upper)
            if self.auth_chain(between) & conflicted
        }

    def full_conflicted_set(self) -> set[str]:
        full = self.conflicted_state_set() | self.auth_difference()
        return full | self.conflicted_state_subgraph() if self.is_v2_1 else full

    def cited(self, event_id: str, type: str) -> Event | None:
        if self.rules.hash_room_ids and type == "m.room.create":
            return self.events["$" + self.events[event_id].room_id[1:]]
        cited = [self.events[auth_id] for auth_id in self.events[event_id].auth_events]
        return next((event for event in cited if (event.type, event.state_key) == (type, "")), None)

    def power_order(self, event_id: str) -> tuple[int, int, str]:
        event = self.events[event_id]
        power_levels = self.cited(event_id, "m.room.power_levels")
        create = self.cited(event_id, "m.room.create")
        creators = frozenset() if create is None else creators_of(create, self.rules)
        levels = PowerLevels.parse(
            None if power_levels is None else power_levels.content, self.rules, creators
        )
        return (-levels.of_user(event.sender), event.origin_server_ts, event_id)

    def reverse_topological_power_ordering(self, event_ids: set[str]) -> list[str]:
        ordered: list[str] = []
        left = set(event_ids)
        while left:
            free = {event_id for event_id in left if not self.auth_chain(event_id) & left}
            ordered.append(min(free, key=self.power_order))
            left.remove(ordered[-1])
        return ordered

    def mainline(self, event_id: str | None) -> list[str]:
        """The power levels event and those behind it, nearest first."""
        line = []
        while event_id is not None:
            line.append(event_id)
            behind = self.cited(event_id, "m.room.power_levels")
            event_id = None if behind is None else behind.event_id
        return line

    def mainline_ordering(self, power_levels: str | None, event_ids: set[str]) -> list[str]:
        mainline = self.mainline(power_levels)

        def order(event_id: str) -> tuple[float, int, str]:
            own_line = self.mainline(event_id)[1:]
            position = next((mainline.index(e) for e in own_line if e in mainline), math.inf)
            return (-position, self.events[event_id].origin_server_ts, event_id)

        return sorted(event_ids, key=order)

    def iterative_auth_checks(self, start: State, ordered: list[str]) -> dict[StateKey, str]:
        state = dict(start)
        for event_id in ordered:
            event = self.events[event_id]
            cited = [self.events[auth_id] for auth_id in event.auth_events]
            if self.rules.hash_room_ids:
                cited.append(self.events["$" + event.room_id[1:]])
            visible = {cite.key: cite for cite in reversed(cited) if not cite.rejected}
            visible |= {key: self.events[value] for key, value in state.items()}
            try:
                check_against_state(self.rules, event, reading(visible))
            except NotAllowed:
                continue
            state[event.key] = event_id
        return state


def reading(visible: Mapping[StateKey, Event]) -> StateLookup:
    return lambda type, state_key: visible.get((type, state_key))
