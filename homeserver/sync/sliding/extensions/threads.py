"""Threads of all joined rooms that were spoken in: the ``threads`` extension.

Without roots, threads are left out of which this response tells everything anyway.
Specification: MSC4360.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.rooms.thread_updates import MAX_UPDATES, ThreadUpdates, UpdatedThreads
from homeserver.sync.positions import SyncToken
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sliding.extensions.asked import limit_in, switch_in
from homeserver.sync.thread_updates import ThreadUpdateWriter

_NAME = "threads"


class ThreadsExtension:
    """Tells which threads have something new."""

    names = ("io.element.msc4360.threads", _NAME)

    def __init__(self, threads: UpdatedThreads, writer: ThreadUpdateWriter) -> None:
        self._threads = threads
        self._writer = writer

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        limit, roots = limit_in(asked, MAX_UPDATES), switch_in(asked, "include_roots")
        told_before = reading.since is not None and _NAME in reading.memory
        since = reading.since.pos if told_before and reading.since is not None else 0
        reading.memory[_NAME] = True
        joined = reading.memberships.joined
        updates = await self._threads.between(reading.user_id, joined, since, reading.now.pos, limit)
        if not roots:
            updates = await self._without_told(reading, updates, since)
        by_room = await self._writer.write(reading.user_id, reading.device_id, updates, roots=roots)
        if not by_room and updates.end is None:
            return None, False
        told: dict[str, Any] = {"updates": by_room}
        if updates.end is not None:
            told["prev_batch"] = str(SyncToken(updates.end))
        return told, True

    async def _without_told(
        self, reading: SlidingReading, updates: ThreadUpdates, since: int
    ) -> ThreadUpdates:
        left = []
        for room, of_room in updates.by_room:
            start = reading.timelines.get(room.nid)
            untold = of_room
            if start is not None:
                untold = await self._threads.spoken_between(room, of_room, since, start)
            if untold:
                left.append((room, untold))
        return ThreadUpdates(left, updates.end)
