"""State resolution: what the room's state is where branches of its history meet.

``resolve`` takes whole state maps; ``resolve_conflicts`` only what differs between them,
for a server that knows the differences without building the maps.  Both are pure: which
events exist is what ``events`` holds, and no input's order matters.  v1 rooms have an
algorithm of their own (``state_res_v1``).  Specification: "State resolution" of room
version 2 (v2) and of room version 12 (v2.1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from homeserver.protocol import state_res_v1
from homeserver.protocol.auth_rules import NotAllowed, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.power_levels import creators_of, power_levels_of
from homeserver.protocol.room_versions import RoomVersion, StateResolution

_CREATE: StateKey = ("m.room.create", "")
_POWER_LEVELS: StateKey = ("m.room.power_levels", "")


def resolve(
    rules: RoomVersion, state_sets: Sequence[Mapping[StateKey, str]], events: Mapping[str, Event]
) -> dict[StateKey, str]:
    """The resolution of a set of states, each a map of event ids.

    ``events`` holds the events of the states and their whole auth chains.  The cost grows
    with the room; see ``resolve_conflicts``.
    """
    unconflicted, conflicted = separate(rules, state_sets)
    if not conflicted:
        return unconflicted
    is_v1 = rules.state_resolution is StateResolution.V1
    is_v2_1 = rules.state_resolution is StateResolution.V2_1
    resolved = resolve_conflicts(
        rules,
        unconflicted=unconflicted.get,
        conflicted=conflicted,
        auth_difference=() if is_v1 else auth_difference(state_sets, events),
        subgraph=conflicted_subgraph(conflicted, events) if is_v2_1 else (),
        events=events,
    )
    return unconflicted | resolved


def separate(
    rules: RoomVersion, state_sets: Sequence[Mapping[StateKey, str]]
) -> tuple[dict[StateKey, str], set[str]]:
    """Divide states into the unconflicted state map and the conflicted state set.

    Unconflicted is what every state has with the same value; in v1, what those that have it
    agree on.
    """
    values: dict[StateKey, set[str | None]] = {}
    for key in {key for state in state_sets for key in state}:
        values[key] = {state.get(key) for state in state_sets}
        if rules.state_resolution is StateResolution.V1:
            values[key].discard(None)
    unconflicted: dict[StateKey, str] = {}
    conflicted: set[str] = set()
    for key, found in values.items():
        event_ids = {event_id for event_id in found if event_id is not None}
        if len(found) == 1:
            unconflicted[key] = event_ids.pop()
        else:
            conflicted |= event_ids
    return unconflicted, conflicted


def auth_chain(event_ids: Iterable[str], events: Mapping[str, Event]) -> set[str]:
    """Every event reached from these by following ``auth_events``; a start only if reached too."""
    chain: set[str] = set()
    pending = list(event_ids)
    while pending:
        for cited in events[pending.pop()].auth_events:
            if cited in events and cited not in chain:
                chain.add(cited)
                pending.append(cited)
    return chain


def auth_difference(state_sets: Sequence[Mapping[StateKey, str]], events: Mapping[str, Event]) -> set[str]:
    """What is in the full auth chain of some, but not of all, of the states.

    COMPAT: Synapse.  A state's own events count as part of its full auth chain.  Read to the
    letter, the specification counts them only where another event of the state cites them; then
    an event of every state could be in the difference and put off the events that cite it,
    and servers in one room would come to different states.
    """
    chains = [{*state.values(), *auth_chain(state.values(), events)} for state in state_sets]
    return set[str]().union(*chains) - chains[0].intersection(*chains[1:])


def conflicted_subgraph(conflicted: Collection[str], events: Mapping[str, Event]) -> set[str]:
    """The events on the paths along ``auth_events`` from one conflicted event to another (v2.1)."""
    wanted = set(conflicted)
    cited_by: dict[str, list[str]] = {}
    for event_id in wanted | auth_chain(wanted, events):
        for cited in events[event_id].auth_events:
            cited_by.setdefault(cited, []).append(event_id)
    # Every event in ``cited_by`` has a conflicted one above it: keep what has one below it too.
    subgraph: set[str] = set()
    pending = list(wanted)
    while pending:
        event_id = pending.pop()
        if event_id not in subgraph:
            subgraph.add(event_id)
            pending += cited_by.get(event_id, ())
    return subgraph


def resolve_conflicts(
    rules: RoomVersion,
    *,
    unconflicted: Callable[[StateKey], str | None],
    conflicted: Collection[str],
    auth_difference: Collection[str],
    subgraph: Collection[str],
    events: Mapping[str, Event],
) -> dict[StateKey, str]:
    """Resolve what is in conflict; the result has only keys that ``unconflicted`` has not.

    1. Of the full conflicted set take the power events and what is behind them, in reverse
       topological power order.
    2. Apply iterative auth checks to them, starting from the unconflicted state (since v2.1
       from nothing).
    3. Take the rest in mainline order, by the power levels that step 2 gave.
    4. Apply iterative auth checks to them, starting from the state step 2 gave.
    5. Unconflicted state stays what it is.

    ``subgraph`` counts since v2.1 only, and v1 goes by ``conflicted`` alone.  ``events`` holds
    all these events, the events they cite, the power levels events behind those (all the way
    down), the unconflicted events the auth rules ask for, since v12 the create event, and the
    events on paths along ``auth_events`` from one of the full conflicted set to another.  What
    else there is in auth chains may be left out.  ``KeyError`` if a needed event is missing.
    """
    if rules.state_resolution is StateResolution.V1:
        return state_res_v1.resolve_conflicts(
            rules, unconflicted=unconflicted, conflicted=conflicted, events=events
        )
    starts_empty = rules.state_resolution is StateResolution.V2_1
    full_conflicted = {*conflicted, *auth_difference, *(subgraph if starts_empty else ())}
    full_conflicted = {event_id for event_id in full_conflicted if events[event_id].is_state}
    resolution = _Resolution(rules, events, (lambda _: None) if starts_empty else unconflicted)
    # 1
    power = _power_events_and_behind(full_conflicted, events)
    # 2
    resolution.apply(_reverse_topological_power_order(rules, power, events))
    # 3
    rest = _mainline_order(full_conflicted - power.keys(), resolution.event_for(_POWER_LEVELS), events)
    # 4
    resolution.apply(rest)
    # 5
    return {key: event_id for key, event_id in resolution.resolved.items() if unconflicted(key) is None}


class _Resolution:
    """The state built up by the iterative auth checks: ``base`` with what was resolved over it."""

    def __init__(
        self, rules: RoomVersion, events: Mapping[str, Event], base: Callable[[StateKey], str | None]
    ) -> None:
        self.resolved: dict[StateKey, str] = {}
        self._rules = rules
        self._events = events
        self._base = base

    def event_for(self, key: StateKey) -> Event | None:
        """The event at a key of the state so far."""
        event_id = self.resolved.get(key) or self._base(key)
        return None if event_id is None else self._events[event_id]

    def apply(self, ordered: Iterable[Event]) -> None:
        """The iterative auth checks: add each event that the state so far allows, in this order.

        State that is missing is taken from the event's own auth events, if not rejected.
        """
        for event in ordered:
            try:
                check_against_state(self._rules, event, self._state_for(event))
            except NotAllowed:
                continue
            self.resolved[event.key] = event.event_id

    def _state_for(self, event: Event) -> Callable[[str, str], Event | None]:
        def state(event_type: str, state_key: str) -> Event | None:
            key = (event_type, state_key)
            return self.event_for(key) or self._cited(event, key)

        return state

    def _cited(self, event: Event, key: StateKey) -> Event | None:
        cited = _cited(self._rules, event, key, self._events)
        return None if cited is None or cited.rejected else cited


def _cited(rules: RoomVersion, event: Event, key: StateKey, events: Mapping[str, Event]) -> Event | None:
    """The auth event at a key; since v12 the room id cites the create event."""
    if rules.hash_room_ids and key == _CREATE:
        return events["$" + event.room_id[1:]]
    return _among_auth_events(event, key, events)


def _among_auth_events(event: Event, key: StateKey, events: Mapping[str, Event]) -> Event | None:
    for event_id in event.auth_events:
        cited = events.get(event_id)
        if cited is not None and (cited.type, cited.state_key) == key:
            return cited
    return None


def _is_power_event(event: Event) -> bool:
    """Whether the event might take away somebody's ability to do something in the room."""
    if event.type == "m.room.member":
        return event.sender != event.state_key and event.content.get("membership") in ("leave", "ban")
    return event.type in ("m.room.power_levels", "m.room.join_rules") and event.is_state


def _power_events_and_behind(
    full_conflicted: set[str], events: Mapping[str, Event]
) -> dict[str, frozenset[str]]:
    """Step 1's events, each with those it is based on.

    They are the power events of the full conflicted set and what of that set is in their
    auth chains, which may lead through events outside it.
    """
    behind: dict[str, frozenset[str]] = {}
    pending = [event_id for event_id in full_conflicted if _is_power_event(events[event_id])]
    selected: dict[str, frozenset[str]] = {}
    while pending:
        event_id = pending.pop()
        if event_id not in selected:
            _find_nearest_behind(event_id, full_conflicted, events, behind)
            selected[event_id] = behind[event_id]
            pending += behind[event_id]
    return selected


def _find_nearest_behind(
    start: str, full_conflicted: set[str], events: Mapping[str, Event], behind: dict[str, frozenset[str]]
) -> None:
    """Fill in ``behind[start]``: what of the full conflicted set ``start`` is based on.

    That is what it reaches along ``auth_events``, directly or through events outside the
    set; those get their entry in ``behind`` too, so that each is walked through once.
    """
    entered: set[str] = set()
    pending = [(start, False)]
    while pending:
        event_id, is_left = pending.pop()
        event = events.get(event_id)
        cited = () if event is None else event.auth_events
        outside = [auth_id for auth_id in cited if auth_id not in full_conflicted]
        if is_left:
            inside = full_conflicted.intersection(cited)
            behind[event_id] = frozenset(inside).union(*(behind.get(auth_id, ()) for auth_id in outside))
        elif event_id not in entered:
            entered.add(event_id)
            pending.append((event_id, True))
            pending += [(auth_id, False) for auth_id in outside if auth_id not in behind]


def _reverse_topological_power_order(
    rules: RoomVersion, based_on: Mapping[str, Collection[str]], events: Mapping[str, Event]
) -> list[Event]:
    """Kahn's algorithm: what an event is based on comes first; then greater power, earlier, lesser id."""
    dependants: dict[str, list[str]] = {event_id: [] for event_id in based_on}
    for event_id, bases in based_on.items():
        for base in bases:
            dependants[base].append(event_id)
    missing = {event_id: len(bases) for event_id, bases in based_on.items()}

    def entry(event_id: str) -> tuple[int, int, str]:
        event = events[event_id]
        return (-_sender_power(rules, event, events), event.origin_server_ts, event_id)

    ready = [entry(event_id) for event_id, count in missing.items() if count == 0]
    heapify(ready)
    ordered = []
    while ready:
        event_id = heappop(ready)[2]
        ordered.append(events[event_id])
        for dependant in dependants[event_id]:
            missing[dependant] -= 1
            if missing[dependant] == 0:
                heappush(ready, entry(dependant))
    return ordered


def _sender_power(rules: RoomVersion, event: Event, events: Mapping[str, Event]) -> int:
    """The sender's power level by the event's own auth events."""
    create = _cited(rules, event, _CREATE, events)
    creators = frozenset[str]() if create is None else creators_of(create, rules)
    power_levels = _among_auth_events(event, _POWER_LEVELS, events)
    return power_levels_of(power_levels, rules, creators).of_user(event.sender)


def _mainline_order(
    event_ids: Iterable[str], power_levels: Event | None, events: Mapping[str, Event]
) -> list[Event]:
    """Order by the mainline of these power levels: based on older ones first; then earlier, lesser id."""
    positions: dict[str, int] = {}
    while power_levels is not None and power_levels.event_id not in positions:
        positions[power_levels.event_id] = len(positions)
        power_levels = _among_auth_events(power_levels, _POWER_LEVELS, events)
    beyond = len(positions)

    def order(event: Event) -> tuple[int, int, str]:
        position = _mainline_position(event, positions, beyond, events)
        return (-position, event.origin_server_ts, event.event_id)

    return sorted((events[event_id] for event_id in event_ids), key=order)


def _mainline_position(
    event: Event, positions: dict[str, int], beyond: int, events: Mapping[str, Event]
) -> int:
    """The index of the first mainline event behind this one; ``beyond`` if there is none.

    What is walked through on the way there is remembered in ``positions``.
    """
    walked: dict[str, None] = {}
    base = _among_auth_events(event, _POWER_LEVELS, events)
    while base is not None and base.event_id not in positions and base.event_id not in walked:
        walked[base.event_id] = None
        base = _among_auth_events(base, _POWER_LEVELS, events)
    position = beyond if base is None else positions.get(base.event_id, beyond)
    positions.update(dict.fromkeys(walked, position))
    return position
