"""Changes to the user's subscriptions to threads: the ``thread_subscriptions`` extension.

Of many changes the newest are told, with a token for the others.  Specification: MSC4308.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.sync.positions import SyncToken
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sliding.extensions.asked import limit_in
from homeserver.sync.thread_subscriptions import MAX_CHANGES, changes_as_json

_NAME = "thread_subscriptions"


class ThreadSubscriptionsExtension:
    """Tells which threads a user came to be subscribed to, and which no longer."""

    names = ("io.element.msc4308.thread_subscriptions", _NAME)

    def __init__(self, subscriptions: ThreadSubscriptions) -> None:
        self._subscriptions = subscriptions

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        limit = limit_in(asked, MAX_CHANGES)
        told_before = reading.since is not None and _NAME in reading.memory
        since = reading.since.pos if told_before and reading.since is not None else 0
        changed = await self._subscriptions.changed(reading.user_id, since, reading.now.pos, limit)
        reading.memory[_NAME] = True
        if not changed.subscriptions:
            return None, False
        told = changes_as_json(changed)
        if changed.end is not None:
            told["prev_batch"] = str(SyncToken(changed.end))
        return told, True
