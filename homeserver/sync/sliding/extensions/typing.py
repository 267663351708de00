"""Who is typing in the rooms in view: the ``typing`` extension.

Each room's list takes the place of the one told before, and is told again when the room comes back
into view: whether clients forget it meanwhile, as they are to, is not relied on.
Specification: MSC4508.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.rooms.rooms import Rooms
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.typing import Typing

_NAME = "typing"


class Shown(msgspec.Struct, frozen=True, gc=False):
    """Rooms in which a client may take somebody to be typing, and those of them that were in view last."""

    rooms: frozenset[int] = frozenset()
    in_view: frozenset[int] = frozenset()


class TypingExtension:
    """Tells who is typing."""

    names = (_NAME, "org.matrix.msc4508.typing")

    def __init__(self, typing: Typing, rooms: Rooms) -> None:
        self._typing = typing
        self._rooms = rooms

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        scope, joined = reading.rooms(asked), reading.memberships.joined
        typing = {
            nid: heard
            for nid, users in self._typing.now(joined).items()
            if nid in scope and (heard := [user_id for user_id in users if user_id not in reading.ignored])
        }
        since = reading.since.ephemeral if reading.since is not None else 0
        changed = self._typing.changed(typing, since)
        shown: Shown = reading.memory.get(_NAME, Shown())
        told = {nid: users for nid, users in typing.items() if nid not in shown.in_view or nid in changed}
        silent = [nid for nid in shown.rooms if nid in joined and nid not in typing]
        told |= {nid: [] for nid in silent if nid in scope}
        out_of_view = [nid for nid in silent if nid not in scope]
        reading.memory[_NAME] = Shown(frozenset([*typing, *out_of_view]), frozenset(typing))
        rooms = {
            (await self._rooms.by_nid(nid)).room_id: {"type": "m.typing", "content": {"user_ids": users}}
            for nid, users in told.items()
        }
        return ({"rooms": rooms}, True) if rooms else (None, False)
