"""Threads that were spoken in, as clients are told of them (MSC4360)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.rooms.room import Room
from homeserver.rooms.thread_updates import ThreadUpdate, ThreadUpdates
from homeserver.sync.client_events import ClientEvents, Form
from homeserver.sync.positions import SyncToken

_FORM = Form()


class ThreadUpdateWriter:
    """Writes threads for clients."""

    def __init__(self, client_events: ClientEvents) -> None:
        self._client_events = client_events

    async def write(
        self, user_id: str, device_id: str | None, updates: ThreadUpdates, *, roots: bool
    ) -> Mapping[str, Mapping[str, Any]]:
        """By room and thread: its root if asked for, and from where to read on if more was said."""
        return {
            room.room_id: await self._of_room(user_id, device_id, room, of_room, roots)
            for room, of_room in updates.by_room
        }

    async def _of_room(
        self, user_id: str, device_id: str | None, room: Room, updates: Sequence[ThreadUpdate], roots: bool
    ) -> dict[str, Any]:
        told: dict[str, dict[str, Any]] = {update.root.stored.id: {} for update in updates}
        if roots:
            seen = [update.root for update in updates]
            written = await self._client_events.write(room, user_id, device_id, seen, _FORM)
            for update, event in zip(updates, written, strict=True):
                told[update.root.stored.id]["thread_root"] = event
        for update in updates:
            if update.has_earlier:
                told[update.root.stored.id]["prev_batch"] = str(SyncToken(update.latest_pos - 1))
        return told
