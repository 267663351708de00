"""Typing, receipts and presence that wait for application services: the latest of each, in memory.

Specification: application service API, "Pushing ephemeral data".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from homeserver.appservices.interest import Interest
from homeserver.appservices.services import AppService
from homeserver.rooms.receipts import READ_PRIVATE, Receipts
from homeserver.rooms.rooms import Rooms
from homeserver.storage import receipts as receipt_storage
from homeserver.storage.database import Database
from homeserver.storage.receipts import UNTHREADED, Receipt
from homeserver.sync.positions import EphemeralPositions
from homeserver.sync.typing import Typing
from homeserver.users.presence import Presence

#: Of each kind, for a service that does not fetch what waits for it; the oldest go first.
_MAX_WAITING: Final = 5_000
#: Of each kind, in one transaction.
_AT_ONCE: Final = 100


class _Waiting(msgspec.Struct):
    """What is new, by what a newer one of the same takes the place of."""

    typing: OrderedDict[str, dict[str, Any]] = msgspec.field(default_factory=OrderedDict)
    receipts: OrderedDict[tuple[str, str, str, str], Receipt] = msgspec.field(default_factory=OrderedDict)
    presence: OrderedDict[str, dict[str, Any]] = msgspec.field(default_factory=OrderedDict)


class EphemeralNews:
    """Collects what is new for the services that want to be told.

    ``position`` is an announced stream position: receipts after it are new.
    """

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        interest: Interest,
        services: Iterable[AppService],
        typing: Typing,
        receipts: Receipts,
        presence: Presence,
        positions: EphemeralPositions,
        position: int,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._interest = interest
        self._services = {service.id: service for service in services}
        self._typing = typing
        self._receipts = receipts
        self._presence = presence
        self._positions = positions
        self._seen = positions.last
        self._receipts_seen = position
        self._waiting = {service_id: _Waiting() for service_id in self._services}

    async def collect(self, upto: int) -> set[str]:
        """Look for news up to an announced position; the services there is some for."""
        if not self._services:
            return set()
        seen, self._seen = self._seen, self._positions.last
        told = await self._collect_receipts(upto)
        if self._seen > seen:
            told |= await self._collect_typing(seen, upto) | await self._collect_presence(seen, upto)
        return told

    def take(self, service_id: str) -> list[dict[str, Any]]:
        """The oldest of what waits for a service, as the events of a transaction."""
        waiting = self._waiting.get(service_id)
        if waiting is None:
            return []
        receipts = _popped(waiting.receipts)
        return [
            *(content for _, content in _popped(waiting.typing)),
            *_as_events([(key[0], receipt) for key, receipt in receipts]),
            *(content for _, content in _popped(waiting.presence)),
        ]

    async def _collect_typing(self, since: int, upto: int) -> set[str]:
        told: set[str] = set()
        for nid in self._typing.changed_anywhere(since):
            room = await self._rooms.by_nid(nid)
            content = {"user_ids": self._typing.users(nid)}
            event = {"type": "m.typing", "room_id": room.room_id, "content": content}
            for service_id in await self._interested(nid, upto):
                _put(self._waiting[service_id].typing, room.room_id, event)
                told.add(service_id)
        return told

    async def _collect_receipts(self, upto: int) -> set[str]:
        told: set[str] = set()
        since, self._receipts_seen = self._receipts_seen, upto
        for nid in self._receipts.newest.changed_anywhere(since):
            services = await self._interested(nid, upto)
            if not services:
                continue
            room_id = (await self._rooms.by_nid(nid)).room_id
            changed = await receipt_storage.changed(self._db.scan, nid, since, upto)
            for service_id in services:
                service = self._services[service_id]
                for receipt in changed:
                    if receipt.type == READ_PRIVATE and not service.owns_user(receipt.user_id):
                        continue
                    key = (room_id, receipt.user_id, receipt.type, receipt.thread_id)
                    _put(self._waiting[service_id].receipts, key, receipt)
                    told.add(service_id)
        return told

    async def _collect_presence(self, since: int, upto: int) -> set[str]:
        told: set[str] = set()
        for presence in reversed(self._presence.changed(since)):
            event = {
                "type": "m.presence",
                "sender": presence.user_id,
                "content": self._presence.content(presence),
            }
            meeting = await self._interest.of_user(presence.user_id, upto)
            for service_id in meeting & self._services.keys():
                _put(self._waiting[service_id].presence, presence.user_id, event)
                told.add(service_id)
        return told

    async def _interested(self, room_nid: int, upto: int) -> set[str]:
        room = await self._rooms.by_nid(room_nid)
        return await self._interest.of_room(room, upto) & self._services.keys()


def _put(waiting: OrderedDict[Any, Any], key: object, value: object) -> None:
    waiting[key] = value
    waiting.move_to_end(key)
    if len(waiting) > _MAX_WAITING:
        waiting.popitem(last=False)


def _popped(waiting: OrderedDict[Any, Any]) -> list[tuple[Any, Any]]:
    return [waiting.popitem(last=False) for _ in range(min(len(waiting), _AT_ONCE))]


def _as_events(receipts: Sequence[tuple[str, Receipt]]) -> list[dict[str, Any]]:
    """One ``m.receipt`` for each room."""
    contents: dict[str, dict[str, Any]] = {}
    for room_id, receipt in receipts:
        said: dict[str, Any] = {"ts": receipt.ts}
        if receipt.thread_id != UNTHREADED:
            said["thread_id"] = receipt.thread_id
        by_type = contents.setdefault(room_id, {}).setdefault(receipt.event_id, {})
        by_type.setdefault(receipt.type, {})[receipt.user_id] = said
    return [
        {"type": "m.receipt", "room_id": room_id, "content": content} for room_id, content in contents.items()
    ]
