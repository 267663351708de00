"""State resolution of room version 1, kept for the rooms that still use it.

It looks at the candidates for each piece of state and at nothing behind them, which is
why it can reset state; v2 and later are in ``state_res``.  Specification: room version 1,
"State resolution".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from homeserver.protocol.auth_rules import NotAllowed, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion

#: The types whose conflicts are settled first, in this order.
_AUTH_TYPES = ("m.room.power_levels", "m.room.join_rules", "m.room.member")


def resolve_conflicts(
    rules: RoomVersion,
    *,
    unconflicted: Callable[[StateKey], str | None],
    conflicted: Collection[str],
    events: Mapping[str, Event],
) -> dict[StateKey, str]:
    """The resolved state of the keys of the conflicted events.

    R, the state so far, starts as what is not in conflict; a key with a single candidate
    is not.  Then, each pass on the R of those before:

    1. the conflicts between ``m.room.power_levels``,
    2. ``m.room.join_rules``,
    3. ``m.room.member`` events, each key by ``_last_of_unbroken_line``;
    4. all others by ``_deepest_allowed``.

    ``events`` holds the conflicted events and the unconflicted ones the auth rules ask for.
    """
    candidates: dict[StateKey, list[Event]] = defaultdict(list)
    for event_id in conflicted:
        event = events[event_id]
        if unconflicted(event.key) is None:
            candidates[event.key].append(event)
    resolved = {key: found[0] for key, found in candidates.items() if len(found) == 1}

    def state(event_type: str, state_key: str) -> Event | None:
        key = (event_type, state_key)
        if key in resolved:
            return resolved[key]
        event_id = unconflicted(key)
        return None if event_id is None else events[event_id]

    # 1, 2, 3
    for event_type in _AUTH_TYPES:
        resolved |= {
            key: _last_of_unbroken_line(rules, found, state)
            for key, found in candidates.items()
            if key[0] == event_type and len(found) > 1
        }
    # 4
    resolved |= {
        key: _deepest_allowed(rules, found, state)
        for key, found in candidates.items()
        if key[0] not in _AUTH_TYPES and len(found) > 1
    }
    return {key: event.event_id for key, event in resolved.items()}


def _last_of_unbroken_line(
    rules: RoomVersion, candidates: Sequence[Event], state: Callable[[str, str], Event | None]
) -> Event:
    """From the shallowest candidate on, each that the one before allows; the first refused ends it."""
    line = sorted(candidates, key=_ascending_depth)
    chosen = line[0]

    def state_so_far(event_type: str, state_key: str) -> Event | None:
        return chosen if (event_type, state_key) == chosen.key else state(event_type, state_key)

    for event in line[1:]:
        if not _is_allowed(rules, event, state_so_far):
            break
        chosen = event
    return chosen


def _deepest_allowed(
    rules: RoomVersion, candidates: Sequence[Event], state: Callable[[str, str], Event | None]
) -> Event:
    """The deepest candidate that is allowed.

    COMPAT: Synapse. Where none is allowed the specification leaves the outcome open, and
    other servers take the shallowest.
    """
    line = sorted(candidates, key=_ascending_depth, reverse=True)
    return next((event for event in line if _is_allowed(rules, event, state)), line[-1])


def _ascending_depth(event: Event) -> tuple[int, int]:
    """Sorts by ascending depth, then by descending SHA-1 of the event id."""
    digest = hashlib.sha1(event.event_id.encode(), usedforsecurity=False).digest()
    return (event.depth, -int.from_bytes(digest))


def _is_allowed(rules: RoomVersion, event: Event, state: Callable[[str, str], Event | None]) -> bool:
    try:
        check_against_state(rules, event, state)
    except NotAllowed:
        return False
    return True
