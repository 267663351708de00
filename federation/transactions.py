"""Transactions of other servers: PDUs to their rooms, EDUs to their receivers.

One transaction of a server is taken in at a time, and a repeated one is answered as
before.  Rooms are independent: one that has a gap to close does not keep the others, or the
answer, waiting beyond a bound.  Specification: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

import orjson
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json
from homeserver.protocol.event_format import InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import V1, V12, RoomVersion
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import may_take_part
from homeserver.storage import received_transactions
from homeserver.storage.database import Database
from homeserver.tasks import Background
from homeserver.web import Json, Reply, Request

_log = structlog.get_logger()

#: Takes in one EDU: the server that sent it, and its content.
ReceiveEdu: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100

#: How long the answer waits for rooms that are busy closing gaps.
PATIENCE_SECONDS: Final = 20.0
#: PDUs of one server that wait for one room; further ones are refused and found missing later.
MAX_WAITING: Final = 500
#: How long a repeated transaction is recognised.
_REMEMBERED_MS: Final = 24 * 3600 * 1000
_FORGET_EVERY_SECONDS: Final = 3600

_Result: TypeAlias = dict[str, str]


class Transactions:
    """Takes in transactions."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        inbound: Inbound,
        invites: Invites,
        edu_receivers: Mapping[str, ReceiveEdu],
        background: Background,
        clock: Clock,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._inbound = inbound
        self._invites = invites
        self._edu_receivers = edu_receivers
        self._background = background
        self._clock = clock
        self._patience = patience
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: The work a server's next PDUs for a room have to wait for, and how many PDUs are in it.
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._waiting: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._forgot_at = clock.monotonic()

    async def receive_transaction(self, request: Request) -> Reply:
        """``PUT /send/{txnId}``."""
        origin, transaction_id = request.origin, request.params["txnId"]
        pdus, edus = _contents(request.json())
        lock = self._locks.setdefault(origin, asyncio.Lock())
        async with lock:
            reply = await received_transactions.reply(self._db.read, origin, transaction_id)
            if reply is None:
                results, _ = await asyncio.gather(
                    self._receive_pdus(origin, pdus), self._receive_edus(origin, edus)
                )
                reply = orjson.dumps({"pdus": results})
                await self._remember(origin, transaction_id, reply)
        return Json(reply)

    async def _remember(self, origin: str, transaction_id: str, reply: bytes) -> None:
        now_ms = self._clock.now_ms()
        if self._clock.monotonic() >= self._forgot_at + _FORGET_EVERY_SECONDS:
            self._forgot_at = self._clock.monotonic()
            before_ms = now_ms - _REMEMBERED_MS
            await self._db.write(partial(received_transactions.remove_older, before_ms=before_ms))
        await self._db.write(
            partial(
                received_transactions.add,
                origin=origin,
                transaction_id=transaction_id,
                reply=reply,
                now_ms=now_ms,
            )
        )

    async def _receive_pdus(self, origin: str, pdus: Sequence[dict[str, Any]]) -> dict[str, _Result]:
        """The result for each PDU by event id; a PDU whose room is still busy counts as taken in."""
        by_room: defaultdict[str, list[int]] = defaultdict(list)
        for index, pdu in enumerate(pdus):
            room_id = pdu.get("room_id")
            if isinstance(room_id, str):
                by_room[room_id].append(index)
        results: dict[int, tuple[str | None, _Result]] = {}
        rooms = [
            self._start(origin, room_id, {index: pdus[index] for index in indexes}, results)
            for room_id, indexes in by_room.items()
        ]
        if rooms:
            await asyncio.wait(rooms, timeout=self._patience)
        for index in {index for indexes in by_room.values() for index in indexes} - results.keys():
            room = await self._rooms.find(pdus[index]["room_id"])
            results[index] = (_event_id(pdus[index], room), {})
        return {event_id: result for event_id, result in results.values() if event_id is not None}

    def _start(
        self,
        origin: str,
        room_id: str,
        pdus: Mapping[int, dict[str, Any]],
        results: dict[int, tuple[str | None, _Result]],
    ) -> asyncio.Task[None]:
        """Take in one room's PDUs, after those that came for it before."""
        lane = (origin, room_id)
        before = self._under_way.get(lane)
        self._waiting[lane] += len(pdus)

        async def receive() -> None:
            if before is not None:
                await asyncio.wait([before])
            for index, pdu in pdus.items():
                results[index] = await self._receive(origin, room_id, pdu)
                self._waiting[lane] -= 1

        async def refuse() -> None:
            room = await self._rooms.find(room_id)
            for index, pdu in pdus.items():
                results[index] = (_event_id(pdu, room), {"error": "Too many events wait for this room"})
                self._waiting[lane] -= 1

        def ended(task: asyncio.Task[None]) -> None:
            if self._under_way.get(lane) is task:
                del self._under_way[lane]
                self._waiting.pop(lane, None)

        if self._waiting[lane] > MAX_WAITING:
            return self._background.start(refuse(), f"refuse PDUs of {origin}")
        task = self._background.start(receive(), f"PDUs of {origin}")
        self._under_way[lane] = task
        task.add_done_callback(ended)
        return task

    async def _receive(self, origin: str, room_id: str, pdu: dict[str, Any]) -> tuple[str | None, _Result]:
        """The event id, where there is one, and what became of one PDU."""
        room = await self._rooms.find(room_id)
        try:
            if room is None:
                return _event_id(pdu, None), {"error": "Unknown room"}
            if not may_take_part(room, origin):
                return _event_id(pdu, room), {"error": "The room's access list does not let you take part"}
            if not self._rooms.is_in(room):
                return _event_id(pdu, room), await self._receive_outside(room, pdu)
            stored = await self._inbound.receive(origin, room_id, pdu)
        except Dropped as error:
            return _event_id(pdu, room), {"error": str(error)}
        except Exception:
            _log.exception("PDU failed", origin=origin, room_id=room_id)
            return _event_id(pdu, room), {"error": "Internal server error"}
        return stored.id, {"error": "The room does not allow the event"} if stored.rejected else {}

    async def _receive_outside(self, room: Room, pdu: dict[str, Any]) -> _Result:
        """A PDU for a room this server is not in can only take back an invite, or refuse a knock."""
        (event,) = await self._inbound.checked(room.rules, [pdu])
        if (
            isinstance(event, Event)
            and event.room_id == room.room_id
            and await self._invites.ended(room, event)
        ):
            return {}
        raise Dropped("this server is not in the room")

    async def _receive_edus(self, origin: str, edus: Sequence[Any]) -> None:
        """In order; one that fails is logged and does not keep back the rest."""
        for edu in edus:
            edu_type = edu.get("edu_type") if isinstance(edu, dict) else None
            content = edu.get("content") if isinstance(edu, dict) else None
            receive = self._edu_receivers.get(edu_type) if isinstance(edu_type, str) else None
            if receive is None or not isinstance(edu_type, str) or not isinstance(content, dict):
                continue
            try:
                permitted = await self._permitted(origin, edu_type, content)
                if permitted is not None:
                    await receive(origin, permitted)
            except MatrixError as error:
                _log.info("EDU refused", origin=origin, edu_type=edu_type, reason=error.message)
            except Exception:
                _log.exception("EDU failed", origin=origin, edu_type=edu_type)

    async def _permitted(self, origin: str, edu_type: str, content: dict[str, Any]) -> dict[str, Any] | None:
        """What rooms' access lists leave of an EDU (spec: "Server Access Control Lists")."""
        match edu_type:
            case "m.typing":
                return content if await self._may_speak_of(origin, content.get("room_id")) else None
            case "m.receipt":
                return {
                    room_id: receipts
                    for room_id, receipts in content.items()
                    if await self._may_speak_of(origin, room_id)
                }
            case _:
                return content

    async def _may_speak_of(self, origin: str, room_id: object) -> bool:
        room = await self._rooms.find(room_id) if isinstance(room_id, str) else None
        return room is not None and may_take_part(room, origin)


def _contents(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """PDUs and EDUs of a transaction, ``M_BAD_JSON`` for too many or none that are lists."""
    pdus, edus = body.get("pdus", []), body.get("edus", [])
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise bad_json("'pdus' and 'edus' must be arrays")
    if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
        raise bad_json(f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")
    if not all(isinstance(pdu, dict) for pdu in pdus):
        raise bad_json("'pdus' must be an array of objects")
    return pdus, edus


def _event_id(pdu: dict[str, Any], room: Room | None) -> str | None:
    """The id to answer for a PDU with; without its room's version it is a good guess."""
    rules: RoomVersion = room.rules if room else (V1 if "event_id" in pdu else V12)
    try:
        return parse_event(pdu, rules).event_id
    except InvalidEvent:
        claimed = pdu.get("event_id")
        return claimed if isinstance(claimed, str) else None
