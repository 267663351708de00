"""``/events``: the stream of before ``/sync``, and the way to look into a room without being in it.

One list of the new events in the order they came, whatever room they are of, and of nothing else.
Tokens are those of ``/sync``, which goes on from them with what this stream does not tell.
Specification: client-server API, "Room Previews", and ``GET /events`` (deprecated).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.history import History, RoomView
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.newest import NewestPositions
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import events as event_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.client_events import ClientEvents, Encoded, Form
from homeserver.sync.memberships import Memberships, UserRooms
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import EphemeralPositions, SyncToken
from homeserver.users.presence import Presence

#: The longest a client is kept waiting, in seconds.
MAX_WAIT = 120.0
#: Events of rooms in one response; what is more comes with the next one.
MAX_EVENTS = 100
#: After so many rooms of one response others get their turn.
_ROOMS_AT_ONCE = 10

_FORM = Form()


class StreamRequest(msgspec.Struct, frozen=True, gc=False):
    """The parameters of ``GET /events``; ``since`` is ``None`` for what comes from now on."""

    user_id: str
    device_id: str | None
    since: SyncToken | None
    timeout_ms: int
    #: For this room alone, whether or not the user is in it.
    room_id: str | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the stream."""

    events: list[Encoded]
    start: SyncToken
    end: SyncToken


class _Found(msgspec.Struct, frozen=True, gc=False):
    pos: int
    room: Room
    seen: SeenEvent


class EventStream:
    """Answers ``/events``."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        memberships: Memberships,
        history: History,
        visibility: Visibility,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
        presence: Presence,
        notifier: Notifier,
        ephemeral: EphemeralPositions,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._memberships = memberships
        self._history = history
        self._visibility = visibility
        self._client_events = client_events
        self._ignored = ignored
        self._presence = presence
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._newest = NewestPositions(
            notifier.position, lambda nids: room_storage.last_positions(db.scan, nids)
        )
        notifier.listeners.append(self._note)

    def now(self) -> SyncToken:
        """The end of the stream, for somebody who has been given no messages to devices."""
        return SyncToken(self._notifier.position, self._ephemeral.last, 0)

    async def wait_and_collect(self, request: StreamRequest) -> Chunk:
        """What is new: at once when there is something, else when there is or time is over.

        ``M_FORBIDDEN`` for a room that the user may not look into.
        """
        since = request.since or self.now()
        seconds = min(request.timeout_ms / 1000, MAX_WAIT)
        if request.room_id is not None:
            view = await self._history.view(request.user_id, request.room_id)
            return await self._wait(
                request.user_id, seconds, lambda: self._of_room(request, since, view), (view.room.nid,)
            )
        await self._presence.synced(request.user_id, "online")
        self._presence.sync_begins(request.user_id)
        try:
            return await self._wait(request.user_id, seconds, lambda: self._of_all(request, since))
        finally:
            self._presence.sync_ends(request.user_id)

    async def _wait(
        self,
        user_id: str,
        seconds: float,
        collect: Callable[[], Awaitable[Chunk]],
        room_nids: Collection[int] | None = None,
    ) -> Chunk:
        """The first chunk that tells anything, or the last one before time is over."""

        async def watched() -> Collection[int]:
            return room_nids if room_nids is not None else (await self._memberships.of(user_id)).joined

        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with self._notifier.waiter(user_id, await watched()) as waiter:
            while True:
                chunk = await collect()
                remaining = deadline - loop.time()
                if chunk.events or remaining <= 0 or self._notifier.closing:
                    return chunk
                await waiter.wait(remaining)
                waiter.reset(await watched())

    async def _of_room(self, request: StreamRequest, since: SyncToken, view: RoomView) -> Chunk:
        now = self._notifier.position
        upto = now if view.upto is None else min(now, view.upto)
        found = await self._events_of(request.user_id, view.room, since.pos, upto)
        return await self._chunk(request, since, found, now)

    async def _of_all(self, request: StreamRequest, since: SyncToken) -> Chunk:
        """What is new in all rooms."""
        now = self._notifier.position
        rooms = await self._memberships.at(request.user_id, now)
        found: list[_Found] = []
        for count, membership in enumerate(await self._to_tell(rooms, since.pos), 1):
            room = await self._rooms.by_nid(membership.room_nid)
            found += await self._of_membership(request.user_id, room, membership, since.pos, now)
            if count % _ROOMS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return await self._chunk(request, since, sorted(found, key=lambda one: one.pos), now)

    async def _chunk(
        self, request: StreamRequest, since: SyncToken, found: Sequence[_Found], now: int
    ) -> Chunk:
        """The first of the events that were found, all up to ``now``; the rest is for the next request."""
        told = found[:MAX_EVENTS]
        end = now if len(told) == len(found) else told[-1].pos
        return Chunk(await self._written(request, told), since, since.after_events(end))

    async def _to_tell(self, rooms: UserRooms, since: int) -> list[LocalMembership]:
        """The memberships of rooms that may have something new."""
        nids = await self._newest.changed(rooms.joined, since)
        nids |= {nid for nid, membership in rooms.by_room.items() if membership.pos > since}
        return [rooms.by_room[nid] for nid in sorted(nids) if not rooms.by_room[nid].forgotten]

    async def _of_membership(
        self, user_id: str, room: Room, membership: LocalMembership, since: int, upto: int
    ) -> list[_Found]:
        """New events of a room the user is in; of others up to what ended that, or the invite alone.

        Of an invite to a room that this server is not in, there is no event.
        """
        if not room.last_pos:
            return []
        if membership.membership in {"join", "leave", "ban"}:
            upto = upto if membership.membership == "join" else membership.pos
            return await self._events_of(user_id, room, since, upto)
        own = (await self._events.by_nids([membership.event_nid])).values()
        return [_Found(membership.pos, room, SeenEvent(stored, membership.membership)) for stored in own]

    async def _events_of(self, user_id: str, room: Room, since: int, upto: int) -> list[_Found]:
        """The first of a room's events in ``(since, upto]`` that a user may see; one more than are told."""
        ignored = await self._ignored.by(user_id)
        found: list[_Found] = []
        cursor = max(since, 0)  # history that came later is for who scrolls back
        while len(found) <= MAX_EVENTS:
            rows = await event_storage.timeline_forward(self._db.read, room.nid, cursor, upto, MAX_EVENTS)
            wanted = [one for one in rows if one.event.is_state or one.event.sender not in ignored]
            for seen in await self._visibility.visible(room, user_id, wanted):
                found.append(_Found(seen.stored.pos or 0, room, seen))
            if len(rows) < MAX_EVENTS:
                break
            cursor = rows[-1].pos or 0
            await asyncio.sleep(0)
        return found[: MAX_EVENTS + 1]

    async def _written(self, request: StreamRequest, found: Sequence[_Found]) -> list[Encoded]:
        written: list[Encoded] = []
        for one in found:
            written += await self._client_events.write(
                one.room, request.user_id, request.device_id, [one.seen], _FORM
            )
        return written

    def _note(self, news: NewEvents) -> None:
        self._newest.note(news.room.nid, news.pos)
