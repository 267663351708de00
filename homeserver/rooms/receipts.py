"""Receipts and read markers: up to where users have read, never going backwards.

Specification: client-server API, "Receipts", "Fully read markers" and "Threaded read receipts".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.errors import forbidden, invalid_param, not_found
from homeserver.protocol.ids import is_event_id, is_user_id, server_name_of
from homeserver.rooms.edus import News, RemoteEdus
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.newest import NewestPositions, UserPositions
from homeserver.rooms.room import Room, may_be_joined, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.threads import MAIN, thread_of
from homeserver.storage import account_data
from homeserver.storage import receipts as receipt_storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import StoredEvent
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.receipts import UNTHREADED, Receipt

READ = "m.read"
READ_PRIVATE = "m.read.private"
FULLY_READ = "m.fully_read"

#: The receipt types clients may set.
RECEIPT_TYPES = (READ, READ_PRIVATE, FULLY_READ)

#: What is read of one EDU; more would be somebody's attempt to keep us busy.
_MAX_EDU_ROOMS = 100
_MAX_EDU_RECEIPTS = 1000
_MAX_TS = 2**53 - 1


class Receipts:
    """Stores receipts, tells other servers of public ones and takes in theirs."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        events: EventCache,
        positions: NumberSequence,
        account_data_positions: UserPositions,
        clock: Clock,
        news: News,
        edus: RemoteEdus,
        server_name: str,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._events = events
        self._positions = positions
        self._account_data_positions = account_data_positions
        self._clock = clock
        self._news = news
        self._edus = edus
        self._server_name = server_name
        #: When each room's receipts last changed.
        self.newest = NewestPositions(positions.last, lambda nids: receipt_storage.newest(db.scan, nids))
        #: Called with the room and the user of each receipt of ours that moved; must return at once.
        self.listeners: list[Callable[[int, str], None]] = []

    async def read(
        self, user_id: str, room_id: str, type_: str, event_id: str, thread_id: str | None = None
    ) -> None:
        """Move one of a user's markers forward to an event; nothing happens when it is there already.

        ``thread_id`` is ``None`` for an unthreaded receipt.  Raises ``M_FORBIDDEN`` for
        somebody who is not joined, ``M_NOT_FOUND`` for an event the room does not have,
        ``M_INVALID_PARAM`` for an unknown type or a thread the event is not in.
        """
        if type_ not in RECEIPT_TYPES:
            raise invalid_param("That is not a type of receipt")
        if thread_id is not None and (type_ == FULLY_READ or not thread_id):
            raise invalid_param("thread_id must be a non-empty string, and only receipts have one")
        room = await self._rooms.get(room_id)
        if membership_of(await self._states.member(room, user_id)) != "join":
            raise forbidden("You are not in this room")
        stored = await self._event(room, event_id)
        if type_ == FULLY_READ:
            await self._mark_fully_read(user_id, room, stored)
            return
        if thread_id is not None and thread_id != stored.id:
            actual = await thread_of(self._events, stored.event)
            if thread_id != actual:
                raise invalid_param("The event is not in that thread")
        await self._store(room, [self._receipt(user_id, type_, thread_id, stored)])

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.receipt`` EDU; what does not belong to the origin is passed over."""
        left = _MAX_EDU_RECEIPTS
        for room_id, by_type in list(content.items())[:_MAX_EDU_ROOMS]:
            users = by_type.get(READ) if isinstance(by_type, dict) else None
            if not isinstance(users, dict) or not isinstance(room_id, str):
                continue
            room = await self._rooms.find(room_id)
            if room is None or not self._rooms.is_in(room):
                continue
            here = list(users.items())[:left]
            left -= len(here)
            receipts = [
                receipt
                for user_id, said in here
                if (receipt := await self._from_remote(origin, room, user_id, said)) is not None
            ]
            if receipts:
                await self._store(room, receipts)

    async def of_user(self, room: Room, user_id: str) -> list[Receipt]:
        """A user's receipts in a room."""
        return await receipt_storage.of_user(self._db.read, room.nid, user_id)

    def _receipt(self, user_id: str, type_: str, thread_id: str | None, stored: StoredEvent) -> Receipt:
        return Receipt(
            user_id=user_id,
            type=type_,
            thread_id=thread_id or UNTHREADED,
            event_id=stored.id,
            event_pos=stored.pos or 0,
            ts=self._clock.now_ms(),
            pos=0,
        )

    async def _from_remote(self, origin: str, room: Room, user_id: str, said: object) -> Receipt | None:
        if not is_user_id(user_id) or server_name_of(user_id) != origin or not isinstance(said, dict):
            return None
        event_ids, data = said.get("event_ids"), said.get("data")
        if not isinstance(event_ids, list) or len(event_ids) != 1 or not isinstance(data, dict):
            return None
        ts, thread_id = data.get("ts"), data.get("thread_id", UNTHREADED)
        event_id = event_ids[0]
        if not isinstance(event_id, str) or not is_event_id(event_id):
            return None
        if not isinstance(ts, int) or not 0 <= ts <= _MAX_TS or not _is_thread_id(thread_id):
            return None
        if not may_be_joined(room, await self._states.member(room, user_id)) or origin not in room.servers:
            return None
        stored = await self._events.by_id(event_id)
        if stored is not None and (stored.room_nid != room.nid or stored.purged):
            return None  # what was purged is older than all that can be read
        event_pos = stored.pos if stored is not None and stored.pos is not None else 0
        return Receipt(user_id, READ, thread_id, event_id, event_pos, ts, 0)

    async def _store(self, room: Room, receipts: Sequence[Receipt]) -> None:
        pos = self._positions.next()
        placed = [
            # An event that has not come yet is taken for newer than all that have.
            msgspec.structs.replace(receipt, pos=pos, event_pos=receipt.event_pos or pos)
            for receipt in receipts
        ]
        self.newest.note(room.nid, pos)

        async def work(tx: Transaction) -> list[Receipt]:
            return [receipt for receipt in placed if await receipt_storage.advance(tx, room.nid, receipt)]

        advanced = await self._db.write(work)
        private = [receipt.user_id for receipt in advanced if receipt.type == READ_PRIVATE]
        public = [receipt for receipt in advanced if receipt.type == READ]
        self._news.announce(pos, rooms=(room.nid,) if public else (), users=private)
        ours = [receipt for receipt in public if server_name_of(receipt.user_id) == self._server_name]
        for listener in self.listeners:
            for user_id in {*private, *(receipt.user_id for receipt in ours)}:
                listener(room.nid, user_id)
        if ours:
            self._edus.send_receipts(room, ours)

    async def _mark_fully_read(self, user_id: str, room: Room, stored: StoredEvent) -> None:
        before = await account_data.content(self._db.read, user_id, room.room_id, FULLY_READ)
        event_id = orjson.loads(before).get("event_id") if before else None
        old = await self._events.by_id(event_id) if isinstance(event_id, str) else None
        if old is not None and old.room_nid == room.nid and (old.pos or 0) >= (stored.pos or 0):
            return
        text = orjson.dumps({"event_id": stored.id}).decode()
        pos = self._positions.next()
        self._account_data_positions.note(user_id, pos)
        await self._db.write(
            lambda tx: account_data.set_content(
                tx, user_id, room.room_id, FULLY_READ, content_json=text, pos=pos
            )
        )
        self._news.announce(pos, users=(user_id,))

    async def _event(self, room: Room, event_id: str) -> StoredEvent:
        stored = await self._events.by_id(event_id)
        if stored is None or stored.room_nid != room.nid or stored.pos is None or not stored.shown:
            raise not_found("The room has no such event")
        return stored


def _is_thread_id(value: object) -> bool:
    return isinstance(value, str) and (value in (UNTHREADED, MAIN) or is_event_id(value))
