"""What the auth rules read, and how they refuse.

The rules look the room's state up one key at a time and never hold a map of it,
so that a check costs the same in a room of three and of fifty thousand members.
Nothing here decides whether an event is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from homeserver.protocol.events import Event

#: Looks up the state an event is checked against: ``state(type, state_key)``.
StateLookup: TypeAlias = Callable[[str, str], Event | None]


class NotAllowed(Exception):
    """The auth rules refuse an event; the message is one sentence that says which rule."""


class NotAllowedToAnybody(NotAllowed):
    """What an event says could not be said by anybody, whatever their power."""


def content_of(event: Event) -> dict[str, Any]:
    """The content of an event, decoded.

    Raises ``NotAllowed`` for content that cannot be decoded: until v5 a PDU may hold
    numbers beyond what a double can carry.
    """
    try:
        return event.content
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAllowed(f"The content of {event.event_id} cannot be read: {error}.") from error


def membership_of(state: StateLookup, user_id: str) -> str | None:
    """A user's membership in the room; ``None`` when they have none, or one that is no string."""
    member = state("m.room.member", user_id)
    if member is None:
        return None
    membership = content_of(member).get("membership")
    return membership if isinstance(membership, str) else None


def join_rule_of(state: StateLookup) -> str | None:
    """The room's join rule: ``invite`` when none was ever set, ``None`` when it is no string."""
    join_rules = state("m.room.join_rules", "")
    if join_rules is None:
        return "invite"
    join_rule = content_of(join_rules).get("join_rule", "invite")
    return join_rule if isinstance(join_rule, str) else None
