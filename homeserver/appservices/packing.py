"""Puts what waits for an application service into its next transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import orjson

from homeserver.appservices.device_news import DeviceNews, body_of
from homeserver.appservices.ephemeral_news import EphemeralNews
from homeserver.appservices.services import AppService
from homeserver.clock import Clock
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.rooms import Rooms
from homeserver.storage import appservices as storage
from homeserver.storage.appservices import OnItsWay, Queued
from homeserver.storage.database import Database
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.notifier import Notifier

#: Events of one transaction, and about how many bytes they take: many services take no more than a megabyte.
MAX_EVENTS: Final = 100
MAX_BYTES: Final = 700_000


class Packing:
    """Makes transactions, and stores them before they are sent."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        client_events: ClientEvents,
        ephemeral: EphemeralNews,
        devices: DeviceNews,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._client_events = client_events
        self._ephemeral = ephemeral
        self._devices = devices
        self._notifier = notifier
        self._clock = clock

    async def next_transaction(self, service: AppService, after_txn: int) -> OnItsWay | None:
        """The next one for a service, numbered above ``after_txn``; ``None`` where nothing waits.

        It is stored, and what it holds waits no longer, when this returns.
        """
        queued = await storage.queued(self._db.read, service.id, MAX_EVENTS)
        taken, events = await self._written(queued)
        ephemeral = self._ephemeral.take(service.id)
        devices = await self._devices.take(service.id, self._notifier.position)
        body: dict[str, Any] = {"events": events}
        if ephemeral:
            # COMPAT: services older than v1.13 of the specification look for it under the proposal's name.
            body |= {"ephemeral": ephemeral, "de.sorunome.msc2409.ephemeral": ephemeral}
        body |= body_of(devices)
        if not taken and len(body) == 1:
            return None
        # By the time, so that numbers are not used again where a database was set up anew.
        txn_id = max(after_txn + 1, self._clock.now_ms())
        transaction = OnItsWay(service.id, txn_id, orjson.dumps(body))
        await self._db.write(
            partial(
                storage.send,
                transaction=transaction,
                events=taken,
                messages=devices.messages,
                devices_pos=devices.devices_pos,
            )
        )
        return transaction

    async def _written(self, queued: Sequence[Queued]) -> tuple[list[Queued], list[orjson.Fragment]]:
        """As many of the events as fit, and how services are sent them."""
        stored = await self._events.by_nids([one.event_nid for one in queued if one.event_nid])
        taken: list[Queued] = []
        written: list[orjson.Fragment] = []
        size = 0
        for one in queued:
            if one.event_nid:
                event = stored[one.event_nid]
                room = await self._rooms.by_nid(event.room_nid)
                text = orjson.dumps(await self._client_events.write_plain(room, event))
            else:
                text = one.json or b"{}"
            size += len(text)
            if taken and size > MAX_BYTES:
                break
            taken.append(one)
            written.append(orjson.Fragment(text))
        return taken, written
