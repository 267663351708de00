"""Who may see an event of a room's history: users, and the servers they live on.

The rules look at the state of the room at the event and say yes or no.  Finding
that state, and leaving out events of ignored or erased senders, is the caller's.
Specification: client-server API, "Room history visibility".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

WORLD_READABLE = "world_readable"
SHARED = "shared"
INVITED = "invited"
JOINED = "joined"

_KNOWN = frozenset((WORLD_READABLE, SHARED, INVITED, JOINED))

#: Memberships whose end a user is told of, whatever the room's visibility.
_ENDED_BY_LEAVING = frozenset(("join", "invite", "knock"))


def visibility_of(content: Mapping[str, Any] | None) -> str:
    """The visibility an ``m.room.history_visibility`` content sets.

    ``shared`` when there is no such event (``None``) or its value is not understood.
    """
    value = content.get("history_visibility") if content is not None else None
    return value if isinstance(value, str) and value in _KNOWN else SHARED


def may_see_event(
    *,
    visibility: str,
    membership_at_event: str | None,
    joined_since: bool,
    visibility_after: str | None = None,
    membership_after: str | None = None,
) -> bool:
    """Whether a user may see an event ("Server behaviour", rules 1 to 5).

    ``visibility`` and ``membership_at_event`` are those of the state before the
    event (``None``: never a member).  ``joined_since`` says whether the user
    joined the room at any time after the event was sent, even if they have left
    again.  For an ``m.room.history_visibility`` event pass what it changes the
    visibility to as ``visibility_after``; for the user's own ``m.room.member``
    event its membership as ``membership_after``: the more permissive side counts.
    """
    if membership_after is not None and _ends_membership(membership_at_event, membership_after):
        return True
    visibilities = _before_and_after(visibility, visibility_after)
    memberships = _before_and_after(membership_at_event, membership_after)
    return any(_allows(v, m, joined_since) for v in visibilities for m in memberships)


def server_may_see(
    *,
    visibility: str,
    memberships_at_event: Collection[str],
    joined_since: bool,
    visibility_after: str | None = None,
    memberships_after: Collection[str] = (),
) -> bool:
    """Whether any user of a server may see an event, so that the server may have it.

    ``memberships_at_event`` are the memberships of that server's users in the
    state before the event, ``joined_since`` whether any of them joined later.
    ``memberships_after`` holds the membership that the event itself gives one
    of the server's users.  A server that may not see an event is sent it redacted.
    """
    memberships: set[str | None] = {None, *memberships_at_event, *memberships_after}
    visibilities = _before_and_after(visibility, visibility_after)
    return any(_allows(v, m, joined_since) for v in visibilities for m in memberships)


def _allows(visibility: str | None, membership: str | None, joined_since: bool) -> bool:
    """The five numbered rules for one visibility and one membership."""
    if visibility == WORLD_READABLE:  # 1
        return True
    if membership == "join":  # 2
        return True
    if visibility not in (INVITED, JOINED) and joined_since:  # 3: shared, or not understood
        return True
    return membership == "invite" and visibility == INVITED  # 4, 5


def _ends_membership(before: str | None, after: str) -> bool:
    """Whether a user's own member event takes back what they already knew they had.

    The rules alone would hide a withdrawn invitation or a refused knock in a
    ``shared`` room, and the client would go on showing it for ever.
    """
    return after in ("leave", "ban") and before in _ENDED_BY_LEAVING


def _before_and_after(before: str | None, after: str | None) -> tuple[str | None, ...]:
    return (before,) if after is None else (before, after)
