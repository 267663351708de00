"""PDUs of transactions on their way into rooms: one lane for each server and room, each in its order.

A lane that has a gap to close keeps no other waiting.  What was answered before it was
taken in is on disk until then, and a server that starts again goes on with it.  How
much may wait is bounded; what goes beyond is refused, and found missing later.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from homeserver.protocol.canonical_json import decode
from homeserver.protocol.event_format import InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.ids import MAX_ID_BYTES, is_event_id, is_room_id
from homeserver.protocol.room_versions import V1, V12, RoomVersion
from homeserver.protocol.signing import event_id_of
from homeserver.rooms.inbound import Dropped, Inbound, Unconnected
from homeserver.rooms.invites import Invites
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import may_take_part
from homeserver.storage import inbound_pdus
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.inbound_pdus import InboundPdu
from homeserver.tasks import Background

_log = structlog.get_logger()

#: PDUs of one server that may wait for one room.
MAX_WAITING: Final = 500
#: PDUs that may wait in all lanes together.
MAX_WAITING_IN_ALL: Final = 10_000
#: PDUs that are kept for another try after they failed.
MAX_FAILED: Final = 500

#: What a PDU is answered with: empty, or an ``error``.
Result: TypeAlias = dict[str, str]

_Lane: TypeAlias = tuple[str, str]

#: What the checks that need no state made of a PDU; ``None``: it was not looked at.
_Checked: TypeAlias = Event | Dropped | None


class Received(msgspec.Struct, eq=False):
    """A PDU and what became of it."""

    room_id: str
    pdu: dict[str, Any]
    event_id: str | None = None
    #: ``None`` while it waits.
    result: Result | None = None
    #: The canonical JSON of one that is to be answered while it waits.
    json: bytes = b""
    #: Its number on disk, for one that was answered while it waited.
    number: int | None = None

    def refuse(self, origin: str, room: Room | None, reason: str) -> None:
        """It leaves no trace but a line of the log."""
        self.event_id, self.result = _event_id(self.pdu, room), _error(reason)
        _log.info(
            "PDU refused",
            origin=origin,
            room_id=self.room_id[:MAX_ID_BYTES],
            event_id=self.event_id,
            reason=reason,
        )


class InboundPdus:
    """Takes in PDUs."""

    def __init__(
        self, *, db: Database, rooms: Rooms, inbound: Inbound, invites: Invites, background: Background
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._inbound = inbound
        self._invites = invites
        self._background = background
        self._numbers = itertools.count(1)
        #: The work that a lane's next PDUs have to wait for, and how many PDUs are in it.
        self._under_way: dict[_Lane, asyncio.Task[None]] = {}
        self._waiting: Counter[_Lane] = Counter()
        self._failed = 0

    async def start(self) -> None:
        """Go on with what was waiting when the server stopped; no PDU may be received before."""
        lanes: defaultdict[_Lane, list[Received]] = defaultdict(list)
        newest = 0
        for row in await inbound_pdus.everything(self._db.scan):
            newest = row.number
            lanes[row.origin, row.room_id].append(Received(row.room_id, decode(row.pdu), number=row.number))
        self._numbers = itertools.count(newest + 1)
        for lane, pdus in lanes.items():
            self._start(lane, pdus, is_last_try=True)

    async def receive(self, origin: str, pdus: Sequence[dict[str, Any]], patience: float) -> list[Received]:
        """Take in PDUs, for ``patience`` seconds; those without a result then go on waiting.

        Those have an ``event_id``, and are to be put on disk by ``kept`` before they are answered.
        """
        received = [Received(_room_id(pdu), pdu) for pdu in pdus]
        by_room: defaultdict[str, list[Received]] = defaultdict(list)
        for each in received:
            if is_room_id(each.room_id):
                by_room[each.room_id].append(each)
            else:
                each.refuse(origin, None, "room_id is not a room ID")
        work = []
        for room_id, of_room in by_room.items():
            if self._has_space((origin, room_id), len(of_room)):
                work.append(self._start((origin, room_id), of_room))
            else:
                room = await self._rooms.find(room_id)
                for each in of_room:
                    each.refuse(origin, room, "Too many events wait already")
        if work:
            await asyncio.wait(work, timeout=patience)
        for each in received:
            if each.result is None:
                await self._prepare(each)
        return received

    def kept(self, origin: str, received: Iterable[Received]) -> list[InboundPdu]:
        """What has to be on disk before PDUs are answered: those that wait.

        The caller writes it before it awaits anything else, so that it is written before it is removed.
        """
        rows = []
        for each in received:
            if each.result is None:
                each.number = next(self._numbers)
                rows.append(InboundPdu(each.number, origin, each.room_id, each.json))
        return rows

    def _has_space(self, lane: _Lane, count: int) -> bool:
        return (
            self._waiting[lane] + count <= MAX_WAITING and self._waiting.total() + count <= MAX_WAITING_IN_ALL
        )

    async def _prepare(self, waiting: Received) -> None:
        """Find the id and the JSON of a PDU that waits, or that it waits in vain."""
        room = await self._rooms.find(waiting.room_id)
        try:
            if room is None:
                waiting.result = _error("Unknown room")
                return
            event = parse_event(waiting.pdu, room.rules)
            waiting.event_id, waiting.json = event.event_id, event.json
        except InvalidEvent as error:
            waiting.event_id = _event_id(waiting.pdu, room)
            waiting.result = _error(f"invalid event: {error}")

    def _start(
        self, lane: _Lane, pdus: Sequence[Received], *, is_last_try: bool = False
    ) -> asyncio.Task[None]:
        """Take in PDUs of one lane, after those that came for it before."""
        before = self._under_way.get(lane)
        self._waiting[lane] += len(pdus)

        async def take_in() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._take_in_all(lane, pdus, is_last_try=is_last_try)

        def ended(task: asyncio.Task[None]) -> None:
            if self._under_way.get(lane) is task:
                del self._under_way[lane]
                self._waiting.pop(lane, None)

        task = self._background.start(take_in(), f"PDUs of {lane[0]}")
        self._under_way[lane] = task
        task.add_done_callback(ended)
        return task

    async def _take_in_all(self, lane: _Lane, pdus: Sequence[Received], *, is_last_try: bool) -> None:
        """Take in PDUs of one lane in their order: together as far as they only continue the room."""
        checked = await self._checked(lane[1], pdus)
        start = 0
        while start < len(pdus):
            run = await self._take_run(lane, checked[start:])
            together = pdus[start : start + len(run)]
            for each, stored in zip(together, run, strict=True):
                each.event_id, each.result = stored.id, {}
            self._waiting[lane] -= len(run)
            await self._remove([each.number for each in together if each.number is not None])
            start += len(run)
            if start < len(pdus):
                await self._take_in(lane, pdus[start], checked[start], is_last_try=is_last_try)
                self._waiting[lane] -= 1
                start += 1

    async def _checked(self, room_id: str, pdus: Sequence[Received]) -> Sequence[_Checked]:
        """The PDUs as events, or why they are none; ``None`` for what is to be looked at by itself."""
        room = await self._rooms.find(room_id)
        if room is not None and self._rooms.is_in(room):
            try:
                return await self._inbound.checked(room.rules, [each.pdu for each in pdus])
            except Exception:
                _log.exception("PDUs not checked together", room_id=room_id)
        return [None] * len(pdus)

    async def _take_run(self, lane: _Lane, checked: Sequence[_Checked]) -> list[StoredEvent]:
        """Take in those of the first events that only continue the room; what fails is tried one by one."""
        origin, room_id = lane
        events = list(_leading_events(checked))
        room = await self._rooms.find(room_id)
        if not events or room is None or not may_take_part(room, origin):
            return []
        try:
            return await self._inbound.receive_run(room_id, events)
        except Exception:
            _log.exception("PDUs not taken in together", origin=origin, room_id=room_id)
            return []

    async def _take_in(
        self, lane: _Lane, received: Received, checked: _Checked, *, is_last_try: bool
    ) -> None:
        """Take in one PDU.

        One that was answered and then failed by a fault of this server's stays on disk, and is
        tried a last time when the server starts again.
        """
        origin, room_id = lane
        try:
            room = await self._rooms.find(room_id)
            try:
                received.event_id, received.result = await self._result(
                    origin, room_id, room, received.pdu, checked
                )
            except Dropped as error:
                received.refuse(origin, room, str(error))
            is_done = True
        except Exception:
            _log.exception("PDU failed", origin=origin, room_id=room_id)
            received.event_id = _event_id(received.pdu, None)
            received.result = _error("Internal server error")
            is_done = is_last_try or self._failed >= MAX_FAILED
            self._failed += received.number is not None and not is_done
        if received.number is not None and is_done:
            await self._remove([received.number])

    async def _remove(self, numbers: Sequence[int]) -> None:
        """A PDU that stays on disk is found to be known when the server starts again."""
        for number in numbers:
            try:
                await self._db.write(partial(inbound_pdus.remove, number=number))
            except Exception:
                _log.exception("PDU not removed", number=number)

    async def _result(
        self, origin: str, room_id: str, room: Room | None, pdu: dict[str, Any], checked: _Checked
    ) -> tuple[str | None, Result]:
        """The event id, where there is one, and what became of one PDU; raises ``Dropped``."""
        if room is None:
            raise Dropped("Unknown room")
        if not may_take_part(room, origin):
            raise Dropped("The room's access list does not let you take part")
        if not self._rooms.is_in(room):
            await self._receive_outside(room, pdu)
            return _event_id(pdu, room), {}
        try:
            if checked is None:
                stored = await self._inbound.receive(origin, room_id, pdu)
            else:
                stored = await self._inbound.receive_checked(origin, room_id, checked)
        except Unconnected as error:
            # No fault of the event's own: an error would tell its sender never to send it again.
            _log.info("PDU not connected", origin=origin, room_id=room_id, reason=str(error))
            return _event_id(pdu, room), {}
        return stored.id, _error("The room does not allow the event") if stored.rejected else {}

    async def _receive_outside(self, room: Room, pdu: dict[str, Any]) -> None:
        """A PDU for a room this server is not in can only take back an invite, or refuse a knock."""
        (event,) = await self._inbound.checked(room.rules, [pdu])
        if (
            not isinstance(event, Event)
            or event.room_id != room.room_id
            or not await self._invites.ended(room, event)
        ):
            raise Dropped("this server is not in the room")


def _leading_events(checked: Iterable[_Checked]) -> Iterator[Event]:
    for each in checked:
        if not isinstance(each, Event):
            return
        yield each


def _error(reason: str) -> Result:
    return {"error": reason}


def _room_id(pdu: dict[str, Any]) -> str:
    room_id = pdu.get("room_id")
    return room_id if isinstance(room_id, str) else ""


def _event_id(pdu: dict[str, Any], room: Room | None) -> str | None:
    """The id to answer for a PDU with, broken as it may be; without its room's version it is a good guess.

    One that carries an id is known to its sender by that, whatever its room's version makes of it.
    """
    carried = pdu.get("event_id")
    if isinstance(carried, str) and is_event_id(carried):
        return carried
    rules: RoomVersion = room.rules if room else (V1 if "event_id" in pdu else V12)
    try:
        event_id: object = event_id_of(pdu, rules)
    except (KeyError, ValueError):
        return None
    return event_id if isinstance(event_id, str) and is_event_id(event_id) else None
