"""Purging: taking the content of old messages off the disk for good.

What stays of a purged event is its place in the graph: its id, what it builds on, the state there,
and who sent an event of which type when.  So state, auth chains and forward extremities are as
before, and other servers cannot bring the event back.  State events are never purged, nor are
forward extremities, which the room's next event builds on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import EventIdFormat, RoomVersion
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.storage import events as event_storage
from homeserver.storage import purges
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import PURGED, StoredEvent, event_from_stored_json
from homeserver.storage.purges import Husk

#: Events of one transaction, and how long others have the database for themselves after it, in seconds.
_STEP = 100
_PAUSE_S = 0.02

#: Forgets what else is kept of events, given by number: a search index, for one.
AlsoForget: TypeAlias = Callable[[Transaction, Sequence[int]], Awaitable[object]]

_Find: TypeAlias = Callable[[int], Awaitable[list[int]]]


class Purge:
    """Purges rooms, a small transaction at a time; each leaves everything as it has to be.

    ``also`` are part of those transactions.
    """

    def __init__(
        self,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        *,
        also: Sequence[AlsoForget] = (),
        pause: float = _PAUSE_S,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._also = also
        self._pause = pause

    async def older_than(self, room_id: str, ts: int) -> int:
        """Purge the messages that were sent before a time (milliseconds); how many those were.

        Nothing is done in a room of which only a part of the state is here.  ``M_NOT_FOUND`` for a
        room this server has never been in.
        """
        room = await self._rooms.get(room_id)
        return await self._all(room, lambda limit: purges.older_than(self._db.scan, room.nid, ts, limit))

    async def upto(self, room_id: str, pos: int) -> int:
        """The same for the messages at or before a position in the room's timeline.

        What is missing there is not fetched from other servers any more.
        """
        room = await self._rooms.get(room_id)
        purged = await self._all(room, lambda limit: purges.upto_pos(self._db.scan, room.nid, pos, limit))
        if room.partial is None:
            await self._db.write(partial(purges.close_gaps, room_nid=room.nid, pos=pos))
        return purged

    async def _all(self, room: Room, find: _Find) -> int:
        total = 0
        while True:
            # Extremities are found anew each time, and stay.
            found = await find(_STEP + len(room.tips))
            purged = await self._step(room.room_id, found) if found else 0
            if not purged:
                return total
            total += purged
            await asyncio.sleep(self._pause)

    @again_when_stale
    async def _step(self, room_id: str, nids: Sequence[int]) -> int:
        """Purge those of some events that may be; the events as they are in memory first, which hurts nobody.

        The room's other writes are queued before this one or see what it leaves.
        """
        async with self._rooms.lock(room_id) as room:
            if room.partial is not None:
                return 0
            await room.settle()
            room.check_sound()
            tips = {tip.nid for tip in room.tips}
            wanted = [nid for nid in nids if nid not in tips][:_STEP]
            stored = await event_storage.by_nids(self._db.read, wanted)
            doomed = [stored[nid] for nid in wanted if not (stored[nid].purged or stored[nid].event.is_state)]
            if not doomed:
                return 0
            hollow = [hollowed(one, room.rules) for one in doomed]
            room.drop({one.nid for one in doomed})
            for one in hollow:
                self._events.put(one)
            husks = [
                Husk(left.nid, left.event.json, one.pos) for one, left in zip(doomed, hollow, strict=True)
            ]
            written = self._db.write(partial(self._store, room_nid=room.nid, husks=husks))
        await written
        return len(husks)

    async def _store(self, tx: Transaction, room_nid: int, husks: Sequence[Husk]) -> None:
        await purges.purge(tx, room_nid, husks)
        for forget in self._also:
            await forget(tx, [husk.nid for husk in husks])


def hollowed(stored: StoredEvent, rules: RoomVersion) -> StoredEvent:
    """What is left of a message once it is purged."""
    event = event_from_stored_json(
        encode(_husk(stored.event, rules)),
        stored.id,
        stored.event.room_id,
        rules,
        rejected=stored.rejected,
    )
    return msgspec.structs.replace(stored, event=event, pos=None, flags=stored.flags | PURGED)


def _husk(event: Event, rules: RoomVersion) -> dict[str, Any]:
    """The fields that reading a stored event takes, without content but for what a redaction redacts."""
    paired = rules.event_id_format is EventIdFormat.SERVER_CHOSEN
    husk: dict[str, Any] = {
        "sender": event.sender,
        "type": event.type,
        "origin_server_ts": event.origin_server_ts,
        "depth": event.depth,
        "prev_events": [[one, {}] if paired else one for one in event.prev_events],
        "auth_events": [],
        "content": {},
    }
    if event.redacts is not None:
        (husk["content"] if rules.updated_redaction_rules else husk)["redacts"] = event.redacts
    return husk
