"""What a user keeps for a room, kept for the one that replaces it too: tags, push rules, being a direct chat.

Only what is missing there is carried over, and only where the old room itself names the new one: a
room that merely claims to replace another gets nothing.  Specification: client-server API, "Room Upgrades".
"""

from __future__ import annotations

from typing import Any

from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.tasks import Background
from homeserver.users.account_data import TAGS, AccountData
from homeserver.users.push_rules import PushRules

_DIRECT = "m.direct"


class CarryOver:
    """Carries settings of local users from rooms to their replacements."""

    def __init__(
        self,
        db: Database,
        rooms: Rooms,
        account_data: AccountData,
        push_rules: PushRules,
        background: Background,
    ) -> None:
        self._db = db
        self._background = background
        self._rooms = rooms
        self._account_data = account_data
        self._push_rules = push_rules

    async def joined(self, user_id: str, room_id: str) -> None:
        """A user has come into a room, which may replace another."""
        room = await self._rooms.find(room_id)
        predecessor = room.create.event.content.get("predecessor") if room and room.last_pos else None
        old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        old = await self._rooms.find(old_id) if isinstance(old_id, str) else None
        tombstone = old.state_event("m.room.tombstone") if old else None
        if old is None or tombstone is None or tombstone.content.get("replacement_room") != room_id:
            return
        await self._carry_tags(user_id, old.room_id, room_id)
        await self._carry_direct(user_id, old.room_id, room_id)
        await self._push_rules.carry_over(user_id, old.room_id, room_id)

    def new_events(self, news: NewEvents) -> None:
        """A room may be replaced by one that some people are in already; done in the background."""
        for stored in news.events:
            replacement = stored.event.content.get("replacement_room") if _is_tombstone(stored) else None
            if isinstance(replacement, str):
                self._background.start(self._replaced(news.room, replacement), "settings for a replaced room")

    async def _replaced(self, old: Room, new_id: str) -> None:
        new = await self._rooms.find(new_id)
        if new is not None:
            there = await room_storage.local_joined(self._db.scan, new.nid)
            for user_id in set(there).intersection(await room_storage.local_joined(self._db.scan, old.nid)):
                await self.joined(user_id, new_id)

    async def _carry_tags(self, user_id: str, old: str, new: str) -> None:
        tags = await self._account_data.tags(user_id, old)
        if tags and not await self._account_data.tags(user_id, new):
            await self._account_data.set_content(user_id, TAGS, {"tags": tags}, new)

    async def _carry_direct(self, user_id: str, old: str, new: str) -> None:
        if with_replacement(await self._account_data.content(user_id, _DIRECT) or {}, old, new) is not None:
            await self._account_data.change(
                user_id, _DIRECT, lambda content: with_replacement(content, old, new) or content
            )


def _is_tombstone(stored: StoredEvent) -> bool:
    return stored.event.type == "m.room.tombstone" and stored.event.state_key == ""


def with_replacement(direct: dict[str, Any], old: str, new: str) -> dict[str, Any] | None:
    """The content of ``m.direct`` with a room beside the one it replaces; ``None`` where nothing changes."""
    changed = {
        user_id: [*rooms, new]
        for user_id, rooms in direct.items()
        if isinstance(rooms, list) and old in rooms and new not in rooms
    }
    return {**direct, **changed} if changed else None
