"""Sliding sync: register, then read, then wait, until there is something to tell.

What a response tells is read against one position that was announced before, as ``/sync`` does.
Specification: MSC4186.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.sync.client_events import LookedUp
from homeserver.sync.memberships import Memberships, UserRooms
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import EphemeralPositions, SyncToken
from homeserver.sync.sliding.connections import Connection, Connections, Place, SentRoom
from homeserver.sync.sliding.extension import Extension, SlidingReading
from homeserver.sync.sliding.listeners import Listened, Listeners
from homeserver.sync.sliding.request import RoomConfig, SlidingRequest
from homeserver.sync.sliding.room_about import RoomReading
from homeserver.sync.sliding.room_result import RoomResults
from homeserver.sync.sliding.selection import View, to_tell
from homeserver.sync.sliding.user_rooms import UserRoomList
from homeserver.users.presence import Presence

#: The longest a client is kept waiting, in seconds.
MAX_WAIT = 120.0
#: Rooms of one response; the next one tells the others, at once.
MOST_ROOMS = 500
#: After so many rooms of one response others get their turn.
_ROOMS_AT_ONCE = 25


class SlidingSync:
    """Answers requests of sliding sync, in both forms."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        memberships: Memberships,
        listeners: Listeners,
        connections: Connections,
        results: RoomResults,
        ignored: IgnoredUsers,
        receipts: Receipts,
        presence: Presence,
        notifier: Notifier,
        ephemeral: EphemeralPositions,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._rooms = rooms
        self._memberships = memberships
        self._listeners = listeners
        self._connections = connections
        self._results = results
        self._ignored = ignored
        self._receipts = receipts
        self._presence = presence
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._extensions = extensions
        #: What extensions go by in requests.
        self.extension_names = frozenset(name for extension in extensions for name in extension.names)

    async def wait_and_collect(self, request: SlidingRequest) -> dict[str, Any]:
        """The response: at once when there is something, else when there is or time is over.

        Raises ``M_UNKNOWN_POS``.
        """
        device = (request.user_id, request.device_id)
        if request.pos is None:
            connection = self._connections.open(device, request.conn_id)
        else:
            connection = self._connections.find(device, request.conn_id, request.pos)
        turn = connection.take_turn()
        await self._presence.synced(request.user_id, request.set_presence, request.device_id)
        with self._listeners.listening(request.user_id) as listened:
            listened.watch.wake()  # who waits on the same connection is too late by now
            waits = request.pos is not None and request.timeout_ms > 0
            if not waits or request.set_presence == "offline":
                return await self._answer(request, connection, turn, listened)
            self._presence.sync_begins(*device)
            try:
                return await self._answer(request, connection, turn, listened)
            finally:
                self._presence.sync_ends(*device)

    async def _answer(
        self, request: SlidingRequest, connection: Connection, turn: int, listened: Listened
    ) -> dict[str, Any]:
        """The first response that tells anything, or the last one before time is over."""
        loop = asyncio.get_running_loop()
        seconds = min(request.timeout_ms / 1000, MAX_WAIT) if request.pos is not None else 0
        deadline = loop.time() + seconds
        while True:
            heard = listened.watch.heard
            async with connection.lock:
                if connection.turn != turn:
                    return _too_late(request)
                response, has_news = await self._collect(request, connection, listened)
            remaining = deadline - loop.time()
            if has_news or remaining <= 0 or self._notifier.closing:
                return response
            await listened.watch.wait(heard, remaining)

    async def _collect(
        self, request: SlidingRequest, connection: Connection, listened: Listened
    ) -> tuple[dict[str, Any], bool]:
        """The response as of now, and whether it tells anything."""
        begun = await self._begin(request, connection, listened)
        told, sent = await self._tell(begun, connection.sent)
        memory = dict(begun.place.memory) if begun.place is not None else {}
        extensions, has_news = await self._extend(begun, begun.reading(told, connection.sent, memory))
        begun.following.told, begun.following.memory = sent, memory
        self._connections.weigh(connection)
        response: dict[str, Any] = {
            "pos": connection.give(begun.following),
            "lists": begun.counts,
            "rooms": {begun.rooms.ids[nid]: result for nid, result in told.items()},
            "extensions": extensions,
        }
        if request.txn_id is not None:
            response["txn_id"] = request.txn_id
        return response, bool(told) or has_news or not begun.is_all

    async def _begin(self, request: SlidingRequest, connection: Connection, listened: Listened) -> _Begun:
        """Decide which rooms to tell."""
        place = connection.resume(request.pos)
        now = SyncToken(self._notifier.position, self._ephemeral.last)
        memberships = await self._memberships.at(request.user_id, now.pos)
        rooms = listened.rooms
        # What waits as this user elsewhere may know of newer rooms, and listens with the same ear.
        listened.watch.follow((await self._memberships.of(request.user_id)).joined)
        await rooms.bring_up_to(now.pos, memberships)
        ignored = await self._ignored.by(request.user_id)
        chosen = {name: await rooms.chosen(one.filters) for name, one in request.lists.items()}
        read = await self._read(request, place, memberships)
        # From here on nothing is awaited: it is said what the rooms are at one moment.
        view = View.of(request, rooms, chosen)
        wanted = [
            (nid, config)
            for nid, config in to_tell(view, place, connection.sent, read).items()
            if nid in memberships.by_room
        ]
        is_all = len(wanted) <= MOST_ROOMS
        following = Place(
            number=place.number + 1 if place is not None else 1,
            token=now,
            lists=view.seen() if is_all else {},
            direct=rooms.direct,
        )
        wanted = wanted[:MOST_ROOMS]
        return _Begun(
            request=request,
            place=place,
            following=following,
            memberships=memberships,
            rooms=rooms,
            ignored=ignored,
            view=view,
            wanted=wanted,
            is_all=is_all,
            counts={name: {"count": len(found)} for name, found in chosen.items()},
            names={nid: view.lists_of(nid) for nid, _ in wanted} if request.stable else {},
        )

    async def _read(self, request: SlidingRequest, place: Place | None, memberships: UserRooms) -> set[int]:
        """Rooms in which somebody has read on, for the form that tells what is unread."""
        if request.stable or place is None:
            return set()
        return await self._receipts.newest.changed(memberships.joined, place.token.pos)

    async def _tell(
        self, begun: _Begun, sent: Mapping[int, SentRoom]
    ) -> tuple[dict[int, dict[str, Any]], dict[int, SentRoom]]:
        """The rooms there is something to tell of, and what the connection knows of all that were read."""
        told: dict[int, dict[str, Any]] = {}
        known: dict[int, SentRoom] = {}
        for start in range(0, len(begun.wanted), _ROOMS_AT_ONCE):
            some = begun.wanted[start : start + _ROOMS_AT_ONCE]
            for reading in await self._readings(begun, some, sent):
                nid = reading.room.nid
                result, now_known = await self._results.write(reading)
                if now_known is not None:
                    known[nid] = now_known
                if result is not None:
                    told[nid] = result
                    if begun.names.get(nid):
                        result["lists"] = begun.names[nid]
            if len(begun.wanted) > _ROOMS_AT_ONCE:
                await asyncio.sleep(0)
        return told, known

    async def _readings(
        self, begun: _Begun, some: Sequence[tuple[int, RoomConfig]], sent: Mapping[int, SentRoom]
    ) -> list[RoomReading]:
        """Some rooms to be told, with what is looked up for all of them at once."""
        rooms = [(await self._rooms.by_nid(nid), config, sent.get(nid)) for nid, config in some]
        upto = begun.following.token.pos
        newest = [
            stored
            for room, config, known in rooms
            for stored in room.recent_between(known.upto if known else 0, upto, config.timeline_limit)
        ]
        # Whoever knows a room is nearly always told its children one by one.
        any_new = any(known is None for _, _, known in rooms)
        request = begun.request
        looked_up = await self._results.look_up(request.user_id, request.device_id, newest, bundled=any_new)
        return [begun.room(room, config, known, looked_up) for room, config, known in rooms]

    async def _extend(self, begun: _Begun, reading: SlidingReading) -> tuple[dict[str, Any], bool]:
        """What extensions tell, and whether that ends the waiting."""
        asked, told, has_news = begun.request.extensions, {}, False
        for extension in self._extensions:
            name = next((name for name in extension.names if name in asked), None)
            if name is None:
                continue
            part, is_news = await extension.collect(asked[name], reading)
            has_news = has_news or is_news
            if part is not None:
                told[name] = part
        return told, has_news


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is being made: what was decided at one moment."""

    request: SlidingRequest
    #: Where the connection goes on from, and where the response leads.
    place: Place | None
    following: Place
    memberships: UserRooms
    rooms: UserRoomList
    ignored: frozenset[str]
    view: View
    wanted: list[tuple[int, RoomConfig]]
    #: Whether all rooms are told that there is something to tell of.
    is_all: bool
    counts: Mapping[str, Any]
    #: The lists each room is in.
    names: Mapping[int, list[str]]

    def room(self, room: Room, config: RoomConfig, sent: SentRoom | None, looked_up: LookedUp) -> RoomReading:
        """What is to be told of one room."""
        return RoomReading(
            user_id=self.request.user_id,
            device_id=self.request.device_id,
            room=room,
            membership=self.memberships.by_room[room.nid],
            config=config,
            sent=sent,
            since=self.place.token.pos if self.place is not None else 0,
            now=self.following.token.pos,
            ephemeral=self.following.token.ephemeral,
            ignored=self.ignored,
            is_dm=room.room_id in self.rooms.direct,
            stable=self.request.stable,
            looked_up=looked_up,
        )

    def reading(
        self, told: Mapping[int, Mapping[str, Any]], sent: Mapping[int, SentRoom], memory: dict[str, Any]
    ) -> SlidingReading:
        """What extensions are told."""
        return SlidingReading(
            user_id=self.request.user_id,
            device_id=self.request.device_id,
            since=self.place.token if self.place is not None else None,
            now=self.following.token,
            memberships=self.memberships,
            lists=self.view.windows,
            subscriptions={self.rooms.ids[nid]: nid for nid in self.view.subscriptions},
            sent_rooms={nid: nid not in sent for nid in told},
            ignored=self.ignored,
            memory=memory,
            timelines={
                nid: SyncToken.parse(result["prev_batch"]).pos
                for nid, result in told.items()
                if result.get("prev_batch")
            },
        )


def _too_late(request: SlidingRequest) -> dict[str, Any]:
    """For a request that was followed by another on its connection: nothing, and no step further."""
    return {"pos": request.pos or "", "lists": {}, "rooms": {}, "extensions": {}}
