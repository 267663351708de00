"""Events that say nothing and bring the forks of a room together.

Every forward extremity costs: states to resolve, here and at every other server.  A room
whose forks do not meet by what people say in it gets an ``org.matrix.dummy_event`` from this server,
as from Synapse.  Nobody is shown it.  A fork or two that the next message merges is left alone,
unless a server has just joined that knows one side only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.ids import server_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.compose import MAX_PREV_EVENTS
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.state_store import StateStore
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import DUMMY
from homeserver.tasks import Background

_log = structlog.get_logger()

#: So many extremities are left to merge by themselves.
FEW = 10
#: How long more than that may stay; more than one event can name are merged at once.
PATIENCE_SECONDS = 30.0
#: How long a room is left alone afterwards, and where nobody here may send.
PAUSE_SECONDS = 60.0
NOBODY_SECONDS = 3600.0

#: What a server gets to take in a room it has just joined; before that, events in it mean nothing to it.
_TAKE_IN_SECONDS = 2.0

_MAX_EVENTS = 60
_MAX_SENDERS = 5
_MAX_ROOMS = 10_000


class _Forked(msgspec.Struct):
    """What is remembered of a room; times are the clock's monotonic seconds."""

    #: Since when it has too many extremities; ``None``: it has not.
    since: float | None = None
    not_before: float = 0.0
    merging: bool = False


class DummyEvents:
    """Merges forks; ``new_events`` is a listener of the notifier."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        send: Send,
        clock: Clock,
        background: Background,
        server_name: str,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._send = send
        self._clock = clock
        self._background = background
        self._server_name = server_name
        self._forked: OrderedDict[int, _Forked] = OrderedDict()

    def new_events(self, news: NewEvents) -> None:
        """Look whether the room has too many extremities, and merge them if it is time."""
        room, now = news.room, self._clock.monotonic()
        forked = self._forked.get(room.nid)
        if len(room.tips) <= FEW:
            if forked is not None:
                forked.since = None
            return
        forked = forked or self._remember(room)
        if forked.since is None:
            forked.since = now
        is_urgent = len(room.tips) > MAX_PREV_EVENTS
        is_time = is_urgent or now - forked.since >= PATIENCE_SECONDS
        if is_time and now >= forked.not_before and not forked.merging:
            forked.merging = True
            self._background.start(self._merge(room.room_id, forked), f"forks of {room.room_id}")

    def tie(self, room: Room) -> None:
        """Name what a server that has just joined was not sent, in an event that it will be sent.

        Its join may build on older events than there are: on those of its make_join.
        """
        if len(room.tips) > 1:
            self._background.start(self._tie(room.room_id), f"tips of {room.room_id}")

    async def _tie(self, room_id: str) -> None:
        await asyncio.sleep(_TAKE_IN_SECONDS)
        room = await self._rooms.get(room_id)
        if len(room.tips) > 1:
            await self._send_one(room)

    def _remember(self, room: Room) -> _Forked:
        forked = self._forked[room.nid] = _Forked()
        if len(self._forked) > _MAX_ROOMS:
            self._forked.popitem(last=False)
        return forked

    async def _merge(self, room_id: str, forked: _Forked) -> None:
        pause = PAUSE_SECONDS
        try:
            for _ in range(_MAX_EVENTS):
                room = await self._rooms.get(room_id)
                if len(room.tips) <= FEW:
                    break
                if not await self._send_one(room):
                    pause = NOBODY_SECONDS
                    break
        finally:
            forked.merging, forked.not_before = False, self._clock.monotonic() + pause

    async def _send_one(self, room: Room) -> bool:
        """Send one event as the first local member who may; false where none may."""
        tried = 0
        async for sender in self._senders(room):
            try:
                await self._send.send(room.room_id, Draft(sender, DUMMY, {}))
            except (NotAllowed, MatrixError) as error:
                _log.info("forks not merged", room_id=room.room_id, sender=sender, reason=str(error))
            else:
                return True
            tried += 1
            if tried == _MAX_SENDERS:
                break
        return False

    async def _senders(self, room: Room) -> AsyncIterator[str]:
        """Local members with the power to send it, as far as power levels tell."""
        levels = room.power_levels
        needed = levels.for_event(DUMMY, is_state=False)
        for user_id in (*levels.unbounded, *levels.users):
            may = server_of(user_id) == self._server_name and levels.of_user(user_id) >= needed
            if may and membership_of(await self._states.member(room, user_id)) == "join":
                yield user_id
        if levels.users_default >= needed:
            for user_id in await room_storage.local_joined(self._db.scan, room.nid):
                if levels.of_user(user_id) >= needed:
                    yield user_id
