"""Changes to a user's thread subscriptions as clients are told of them (MSC4308)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from homeserver.rooms.thread_subscriptions import Changed

#: Changes told at once.
MAX_CHANGES = 100


def changes_as_json(changed: Changed) -> dict[str, Any]:
    """Those who were made or altered, and those that ended, by room and thread; without what is empty."""
    subscribed: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    unsubscribed: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for room_id, one in changed.subscriptions:
        if one.subscribed:
            subscribed[room_id][one.root_id] = {"automatic": one.automatic, "bump_stamp": one.pos}
        else:
            unsubscribed[room_id][one.root_id] = {"bump_stamp": one.pos}
    told = {"subscribed": subscribed, "unsubscribed": unsubscribed}
    return {name: by_room for name, by_room in told.items() if by_room}
