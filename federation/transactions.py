"""Transactions of other servers: PDUs to their rooms, EDUs to their receivers.

One transaction of a server is taken in at a time, and a repeated one is answered as
before.  Rooms are independent: one that has a gap to close does not keep the others, or the
answer, waiting beyond a bound.  Specification: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

import orjson
import structlog

from federation.inbound_pdus import InboundPdus, Received
from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json, limit_exceeded
from homeserver.protocol.ids import is_room_id
from homeserver.replies import Json, Reply
from homeserver.rooms.inbound import Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import may_take_part
from homeserver.storage import inbound_pdus, received_transactions
from homeserver.storage.database import Database, Transaction
from homeserver.tasks import Background
from homeserver.web import Request

_log = structlog.get_logger()

#: Takes in one EDU: the server that sent it, and its content.
ReceiveEdu: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100
#: Transactions of one server that may wait for each other; the specification lets it send one at a time.
MAX_AT_ONCE: Final = 10
#: Rooms of one receipt EDU that are looked at.
_MAX_RECEIPT_ROOMS: Final = 100

#: How long the answer waits for rooms that are busy closing gaps.
PATIENCE_SECONDS: Final = 8.0
#: How long a repeated transaction is recognised.
_REMEMBERED_MS: Final = 24 * 3600 * 1000
_FORGET_EVERY_SECONDS: Final = 3600


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
        self._pdus = InboundPdus(db=db, rooms=rooms, inbound=inbound, invites=invites, background=background)
        self._edu_receivers = edu_receivers
        self._clock = clock
        self._patience = patience
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._at_once: Counter[str] = Counter()
        self._forgot_at = clock.monotonic()

    async def start(self) -> None:
        """Go on with what was answered and not yet taken in; call it before the first transaction comes."""
        await self._pdus.start()

    async def receive_transaction(self, request: Request) -> Reply:
        """``PUT /send/{txnId}``."""
        origin, transaction_id = request.origin, request.params["txnId"]
        pdus, edus = _contents(request.json())
        async with self._turn(origin):
            reply = await received_transactions.reply(self._db.read, origin, transaction_id)
            if reply is None:
                received, _ = await asyncio.gather(
                    self._pdus.receive(origin, pdus, self._patience), self._receive_edus(origin, edus)
                )
                await self._forget_old_transactions()
                reply = await self._remember(origin, transaction_id, received)
        return Json(reply)

    @asynccontextmanager
    async def _turn(self, origin: str) -> AsyncIterator[None]:
        """One transaction of a server at a time; ``M_LIMIT_EXCEEDED`` when too many wait already."""
        if self._at_once[origin] >= MAX_AT_ONCE:
            raise limit_exceeded(round(self._patience * 1000))
        self._at_once[origin] += 1
        try:
            async with self._locks.setdefault(origin, asyncio.Lock()):
                yield
        finally:
            self._at_once[origin] -= 1
            if not self._at_once[origin]:
                del self._at_once[origin]

    async def _forget_old_transactions(self) -> None:
        if self._clock.monotonic() >= self._forgot_at + _FORGET_EVERY_SECONDS:
            self._forgot_at = self._clock.monotonic()
            before_ms = self._clock.now_ms() - _REMEMBERED_MS
            await self._db.write(partial(received_transactions.remove_older, before_ms=before_ms))

    async def _remember(self, origin: str, transaction_id: str, received: Sequence[Received]) -> bytes:
        """The reply, on disk together with what it says is taken in and is not yet."""
        waiting = self._pdus.kept(origin, received)
        results = {each.event_id: each.result or {} for each in received if each.event_id is not None}
        reply, now_ms = orjson.dumps({"pdus": results}), self._clock.now_ms()

        async def store(tx: Transaction) -> None:
            await received_transactions.add(tx, origin, transaction_id, reply, now_ms)
            await inbound_pdus.add(tx, waiting)

        await self._db.write(store)
        return reply

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
                    for room_id, receipts in islice(content.items(), _MAX_RECEIPT_ROOMS)
                    if await self._may_speak_of(origin, room_id)
                }
            case _:
                return content

    async def _may_speak_of(self, origin: str, room_id: object) -> bool:
        if not isinstance(room_id, str) or not is_room_id(room_id):
            return False
        room = await self._rooms.find(room_id)
        return room is not None and may_take_part(room, origin)


def _contents(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """PDUs and EDUs of a transaction, ``M_BAD_JSON`` for too many or none that are lists.

    COMPAT: servers in Go (Dendrite) write an empty list as ``null``.
    """
    pdus, edus = (body[name] if body.get(name) is not None else [] for name in ("pdus", "edus"))
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise bad_json("'pdus' and 'edus' must be arrays")
    if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
        raise bad_json(f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")
    if not all(isinstance(pdu, dict) for pdu in pdus):
        raise bad_json("'pdus' must be an array of objects")
    return pdus, edus
