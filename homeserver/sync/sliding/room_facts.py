"""What rooms are, as far as lists ask: their type, and whether they are encrypted.

Read for many rooms at once, and remembered: a room's type never changes, and what is
encrypted stays so.
Specification: MSC4186, ``SlidingRoomFilter``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.rooms import Rooms
from homeserver.storage import summaries as summary_storage
from homeserver.storage.database import Database
from homeserver.storage.keys import Keys
from homeserver.storage.rooms import LocalMembership

_CREATE, _ENCRYPTION = "m.room.create", "m.room.encryption"
_REMEMBERED = 200_000


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What a list may ask of a room."""

    room_type: str | None = None
    encrypted: bool = False


UNKNOWN = Facts()


class RoomFacts:
    """Knows the facts about rooms this server is in."""

    def __init__(self, db: Database, keys: Keys, events: EventCache, rooms: Rooms) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._rooms = rooms
        self._known: OrderedDict[int, Facts] = OrderedDict()

    async def of(self, room_nids: Sequence[int]) -> dict[int, Facts]:
        """The facts about some rooms, those this server knows nothing of left out."""
        unknown = [nid for nid in room_nids if nid not in self._known]
        if unknown:
            await self._read(unknown)
        return {nid: self._known[nid] for nid in room_nids if nid in self._known}

    async def changed(self, room_nids: Iterable[int]) -> None:
        """Something happened in these rooms: they may be encrypted since."""
        for nid in room_nids:
            known = self._known.get(nid)
            if known is None or known.encrypted:
                continue
            room = await self._rooms.by_nid(nid)
            if room.state_event(_ENCRYPTION) is not None:
                self._known[nid] = Facts(known.room_type, encrypted=True)

    async def _read(self, nids: Sequence[int]) -> None:
        found = [await self._keys.find((type_, "")) for type_ in (_CREATE, _ENCRYPTION)]
        keys = [key_nid for key_nid in found if key_nid is not None]
        values = await summary_storage.values(self._db.scan, nids, keys)
        events = await self._events.by_nids([event_nid for _, event_nid in values])
        contents: dict[int, dict[str, Any]] = {}
        for room_nid, event_nid in values:
            event = events[event_nid].event
            contents.setdefault(room_nid, {})[event.type] = event.content
        for room_nid, by_type in contents.items():
            self._known[room_nid] = facts_in(by_type)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def facts_in(contents: dict[str, Any]) -> Facts:
    """The facts that the contents of a room's state say, by event type."""
    create = contents.get(_CREATE)
    type_ = create.get("type") if create is not None else None
    return Facts(type_ if isinstance(type_, str) else None, _ENCRYPTION in contents)


def told_from_outside(membership: LocalMembership) -> Facts | None:
    """The facts that an invite or a knock says of a room this server is not in."""
    if membership.stripped_state is None:
        return None
    told = orjson.loads(membership.stripped_state)
    contents = {
        event["type"]: event["content"]
        for event in told
        if isinstance(event, dict)
        and event.get("type") in (_CREATE, _ENCRYPTION)
        and isinstance(event.get("content"), dict)
    }
    return facts_in(contents)
