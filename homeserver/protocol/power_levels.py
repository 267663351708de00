"""Who may do what in a room: power levels, read from the events that set them.

Reading is lenient, since what reaches a room's state has passed the auth rules: a
value that is no level counts as absent.  Whether a *new* power levels event may be
sent is not decided here but in ``auth_rules`` (rule 10), which shares ``level_of``.
Specification: ``m.room.power_levels``, and "Deprecated event content schemas" of the
room versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from homeserver.protocol.auth_state import StateLookup, content_of
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion

#: The infinite power of room creators (since v12): above every level canonical JSON can hold.
CREATOR_LEVEL = 2**63

#: The levels that are single values, with what each is when absent.
DEFAULTS: Mapping[str, int] = {
    "users_default": 0,
    "events_default": 0,
    "state_default": 50,
    "ban": 50,
    "redact": 50,
    "kick": 50,
    "invite": 0,
}

_STRINGY_LEVEL = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


def level_of(value: Any, rules: RoomVersion) -> int | None:
    """The level a JSON value stands for; ``None`` if it stands for none.

    Since v10 only integers do.  Before, so do strings that hold a decimal integer, and
    (where canonical JSON is not enforced) floats, which are truncated towards zero.
    """
    if isinstance(value, bool) or (rules.integer_power_levels and not isinstance(value, int)):
        return None
    if isinstance(value, float) and rules.strict_canonical_json:
        return None
    if isinstance(value, str) and not _STRINGY_LEVEL.fullmatch(value):
        return None
    if not isinstance(value, int | float | str):
        return None
    try:
        level = int(value)
        float(level)
    except (ValueError, OverflowError):  # not finite, more digits than int() takes, above every double
        return None
    return level


def levels_in(value: Any, rules: RoomVersion) -> dict[str, int]:
    """The levels of an object such as ``users``, without what is no level; empty for no object."""
    if not isinstance(value, dict):
        return {}
    levels = ((name, level_of(level, rules)) for name, level in value.items())
    return {name: level for name, level in levels if level is not None}


class PowerLevels(msgspec.Struct, frozen=True):
    """The power levels in force, with every default filled in."""

    users: Mapping[str, int]
    events: Mapping[str, int]
    users_default: int
    events_default: int
    state_default: int
    ban: int
    redact: int
    kick: int
    invite: int
    #: Users of unbounded power (since v12).
    unbounded: frozenset[str]
    _notifications: Mapping[str, int]

    @classmethod
    def parse(
        cls, content: dict[str, Any] | None, rules: RoomVersion, creators: frozenset[str]
    ) -> PowerLevels:
        """Read the content of a power levels event; ``None`` when the room has none.

        Never raises.  ``creators`` as ``creators_of`` gives them: they have 100 in a room
        without a power levels event, and unbounded power always since v12.
        """
        given = {} if content is None else content
        values = {name: level_of(given.get(name), rules) for name in DEFAULTS}
        users = levels_in(given.get("users"), rules)
        if content is None and not rules.hash_room_ids:
            users = dict.fromkeys(creators, 100)
        return cls(
            users=users,
            events=levels_in(given.get("events"), rules),
            unbounded=creators if rules.hash_room_ids else frozenset(),
            _notifications=levels_in(given.get("notifications"), rules),
            **{name: DEFAULTS[name] if level is None else level for name, level in values.items()},
        )

    def of_user(self, user_id: str) -> int:
        """The power level of a user; ``CREATOR_LEVEL`` for creators since v12."""
        if user_id in self.unbounded:
            return CREATOR_LEVEL
        return self.users.get(user_id, self.users_default)

    def for_event(self, event_type: str, is_state: bool) -> int:
        """The level needed to send an event of this type (membership events have rules of their own)."""
        return self.events.get(event_type, self.state_default if is_state else self.events_default)

    def notifications(self, key: str) -> int:
        """The level needed to trigger notifications of this kind, such as ``room``."""
        return self._notifications.get(key, 50)


# The two memos go by the identity of the event object, not by its id: in v1 and v2 another
# server chooses the id and could give one to two events.


@lru_cache(maxsize=1024)
def creators_of(create: Event, rules: RoomVersion) -> frozenset[str]:
    """The user ids of a room's creators; memoised.

    Until v10 what ``content.creator`` says, in v11 the sender, since v12 the sender and
    ``content.additional_creators``.  Raises ``NotAllowed`` if the content cannot be decoded.
    """
    if not rules.implicit_room_creator:
        creator = content_of(create).get("creator")
        return frozenset((creator,)) if isinstance(creator, str) else frozenset()
    if not rules.hash_room_ids:
        return frozenset((create.sender,))
    additional = content_of(create).get("additional_creators")
    users = additional if isinstance(additional, list) else []
    return frozenset((create.sender, *(user for user in users if isinstance(user, str))))


@lru_cache(maxsize=1024)
def power_levels_of(event: Event | None, rules: RoomVersion, creators: frozenset[str]) -> PowerLevels:
    """The levels an ``m.room.power_levels`` event sets, or the lack of one means; memoised.

    Raises ``NotAllowed`` if the content cannot be decoded.
    """
    return PowerLevels.parse(None if event is None else content_of(event), rules, creators)


def power_levels_from(state: StateLookup, rules: RoomVersion) -> PowerLevels:
    """The power levels in force in a state; without a create event nobody is a creator."""
    create = state("m.room.create", "")
    creators = frozenset[str]() if create is None else creators_of(create, rules)
    return power_levels_of(state("m.room.power_levels", ""), rules, creators)
