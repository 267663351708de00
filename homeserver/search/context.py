"""What was said around an event that was found, as somebody may see it.

Nothing is fetched from other servers for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import events as event_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

#: Events looked at beyond those asked for, on each side: some may not be shown.
_SPARE = 20

_FAR = 1 << 62


class Context(msgspec.Struct, frozen=True, gc=False):
    """The events around one; ``before`` is newest first, ``after`` oldest first."""

    before: list[SeenEvent]
    after: list[SeenEvent]
    #: Member events of those who sent them, as they were at the last of them.
    members: list[StoredEvent]
    #: Positions right before the first and right after the last of them.
    start: int
    end: int


class Contexts:
    """Finds them."""

    def __init__(
        self, db: Database, states: StateStore, visibility: Visibility, ignored: IgnoredUsers
    ) -> None:
        self._db = db
        self._states = states
        self._visibility = visibility
        self._ignored = ignored

    async def around(
        self, room: Room, user_id: str, one: SeenEvent, before: int, after: int, *, with_members: bool
    ) -> Context:
        """Up to so many events before and after one."""
        pos = one.stored.pos or 0
        earlier = await event_storage.timeline_backward(self._db.read, room.nid, pos - 1, before + _SPARE)
        later = await event_storage.timeline_forward(self._db.read, room.nid, pos, _FAR, after + _SPARE)
        seen_before = (await self._seen(room, user_id, earlier))[:before]
        seen_after = (await self._seen(room, user_id, later))[:after]
        whole = [*reversed(seen_before), one, *seen_after]
        return Context(
            before=seen_before,
            after=seen_after,
            members=await self._members(room, whole) if with_members else [],
            start=(whole[0].stored.pos or 0) - 1,
            end=whole[-1].stored.pos or 0,
        )

    async def _seen(self, room: Room, user_id: str, stored: Sequence[StoredEvent]) -> list[SeenEvent]:
        ignored = await self._ignored.by(user_id)
        said = [one for one in stored if one.event.is_state or one.event.sender not in ignored]
        return await self._visibility.visible(room, user_id, said)

    async def _members(self, room: Room, events: Sequence[SeenEvent]) -> list[StoredEvent]:
        ref = events[-1].stored.state_after or 0
        senders = dict.fromkeys(one.stored.event.sender for one in events)
        found = [await self._states.event_at(room, ref, (MEMBER, sender)) for sender in senders]
        return [stored for stored in found if stored is not None]
