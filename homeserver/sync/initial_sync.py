"""``/initialSync``: all rooms, or one, as they are now, for clients that go on with ``/events``.

Specification: client-server API, ``GET /initialSync`` and ``GET /rooms/{roomId}/initialSync``
(both deprecated).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from homeserver.protocol.event_format import client_event
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History, RoomView
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.receipts import READ_PRIVATE
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import Visibility
from homeserver.storage import account_data
from homeserver.storage import receipts as receipt_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.account_data import account_data_events
from homeserver.sync.client_events import ClientEvents, Form
from homeserver.sync.event_stream import EventStream
from homeserver.sync.memberships import Memberships
from homeserver.sync.positions import SyncToken
from homeserver.sync.receipts import receipt_events
from homeserver.sync.timeline_window import TimelineWindows
from homeserver.users.presence import Presence

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
#: Of one response.
_MAX_PRESENCE = 500

_FORM = Form()


class InitialSyncRequest(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and for how many messages of each room."""

    user_id: str
    device_id: str | None
    limit: int = DEFAULT_LIMIT
    #: Rooms that were left as well.
    archived: bool = False


class InitialSync:
    """Answers both kinds of ``/initialSync``."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        memberships: Memberships,
        history: History,
        visibility: Visibility,
        windows: TimelineWindows,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
        presence: Presence,
        stream: EventStream,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._memberships = memberships
        self._history = history
        self._visibility = visibility
        self._windows = windows
        self._client_events = client_events
        self._ignored = ignored
        self._presence = presence
        self._stream = stream

    async def everything(self, request: InitialSyncRequest) -> dict[str, Any]:
        """``GET /initialSync``; rooms whose members are still being fetched are left out."""
        now = self._stream.now()
        rooms = await self._memberships.at(request.user_id, now.pos)
        data = await account_data.changed(self._db.read, request.user_id, since=0, until=now.pos)
        by_room: defaultdict[str, list[AccountDatum]] = defaultdict(list)
        for datum in data:
            by_room[datum.room_id].append(datum)
        infos, receipts = [], []
        for membership in rooms.by_room.values():
            if not self._is_wanted(request, membership):
                continue
            room = await self._rooms.by_nid(membership.room_nid)
            if membership.membership == "invite":
                infos.append(await self._invite(room, membership))
            elif room.last_pos and room.partial is None:
                view = _view(room, membership, now.pos)
                infos.append(await self._room(request, view, membership, by_room[room.room_id], now))
                if view.joined:
                    receipts += await self._receipts(request.user_id, room, now.pos)
            await asyncio.sleep(0)
        return {
            "end": str(now),
            "rooms": infos,
            "presence": await self._presence_events(request.user_id),
            "account_data": account_data_events(by_room[GLOBAL]),
            "receipts": receipts,
        }

    async def one_room(self, request: InitialSyncRequest, room_id: str) -> dict[str, Any]:
        """``GET /rooms/{roomId}/initialSync``, also for who looks into a room without being in it.

        ``M_FORBIDDEN`` for a room the user may not look into.
        """
        view = await self._history.whole(await self._history.view(request.user_id, room_id))
        now = self._stream.now()
        room = view.room
        membership = await room_storage.local_membership(self._db.read, request.user_id, room.nid)
        data = await account_data.changed(self._db.read, request.user_id, since=0, until=now.pos)
        of_room = [datum for datum in data if datum.room_id == room_id]
        view = msgspec.structs.replace(view, upto=now.pos if view.upto is None else view.upto)
        info = await self._room(request, view, membership, of_room, now)
        info["presence"], info["receipts"] = [], []
        if view.joined:
            members = await self._history.members(view, None, lambda kind: kind == "join")
            joined = {one.event.state_key for one in members}
            seen = await self._presence_events(request.user_id)
            info["presence"] = [event for event in seen if event["sender"] in joined]
            info["receipts"] = await self._receipts(request.user_id, room, now.pos)
        return info

    def _is_wanted(self, request: InitialSyncRequest, membership: LocalMembership) -> bool:
        if membership.forgotten or membership.membership == "knock":
            return False
        return request.archived or membership.membership in {"join", "invite"}

    async def _room(
        self,
        request: InitialSyncRequest,
        view: RoomView,
        membership: LocalMembership | None,
        data: Iterable[AccountDatum],
        now: SyncToken,
    ) -> dict[str, Any]:
        """A room up to where the view ends."""
        room, upto = view.room, now.pos if view.upto is None else view.upto
        rows = await room_storage.by_nids(self._db.read, [room.nid])
        state = await self._history.state(view)
        info: dict[str, Any] = {
            "room_id": room.room_id,
            "messages": await self._messages(request, room, upto, now.after_events(upto)),
            "state": await self._client_events.write_much_state(state, _FORM),
            "visibility": "public" if rows[room.nid].published else "private",
            "account_data": account_data_events(data),
        }
        if membership is not None:
            info["membership"] = membership.membership
        return info

    async def _messages(
        self, request: InitialSyncRequest, room: Room, upto: int, end: SyncToken
    ) -> dict[str, Any]:
        ignored = await self._ignored.by(request.user_id)

        def accept(stored: StoredEvent) -> bool:
            return stored.event.is_state or stored.event.sender not in ignored

        window = await self._windows.read(
            room,
            request.user_id,
            after=0,
            upto=upto,
            limit=request.limit,
            accept=accept,
            joined_since=await self._visibility.joined_since(room, request.user_id, upto),
        )
        chunk = await self._client_events.write(
            room, request.user_id, request.device_id, window.events, _FORM
        )
        return {"start": str(SyncToken(window.start)), "end": str(end), "chunk": chunk}

    async def _invite(self, room: Room, membership: LocalMembership) -> dict[str, Any]:
        """An invite: the event itself where this server has the room, else what came with the invite."""
        info: dict[str, Any] = {
            "room_id": room.room_id,
            "membership": "invite",
            "inviter": membership.sender,
        }
        if membership.stripped_state is not None:
            told = orjson.loads(membership.stripped_state)
            own = (event for event in told if _is_member(event, membership.user_id))
            info["invite"] = next(own, None)
            info["state"] = told
        else:
            stored = (await self._events.by_nids([membership.event_nid])).get(membership.event_nid)
            info["invite"] = client_event(stored.event) if stored is not None else None
        return {name: value for name, value in info.items() if value is not None}

    async def _presence_events(self, user_id: str) -> list[dict[str, Any]]:
        """Those who are there and share a room with a user, and the user."""
        there = [one for one in self._presence.changed(0) if one.state != "offline"][:_MAX_PRESENCE]
        others = [one.user_id for one in there if one.user_id != user_id]
        seen = {*(await self._presence.seen_by(user_id, others) if others else ()), user_id}
        return [
            {"type": "m.presence", "sender": one.user_id, "content": self._presence.content(one)}
            for one in there
            if one.user_id in seen
        ]

    async def _receipts(self, user_id: str, room: Room, upto: int) -> list[dict[str, Any]]:
        receipts = await receipt_storage.changed(self._db.scan, room.nid, 0, upto)
        shown = [one for one in receipts if one.type != READ_PRIVATE or one.user_id == user_id]
        return [{**event, "room_id": room.room_id} for event in receipt_events(shown)]


def _view(room: Room, membership: LocalMembership, now: int) -> RoomView:
    """What a member sees at a position; who has left, what there was then."""
    joined = membership.membership == "join"
    return RoomView(room, membership.user_id, now if joined else membership.pos, joined)


def _is_member(event: dict[str, Any], user_id: str) -> bool:
    return (event.get("type"), event.get("state_key")) == (MEMBER, user_id)
