"""Everything that application services are sent of their own accord, from the stream to their doors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from homeserver.appservices.delivery import Delivery
from homeserver.appservices.device_news import DeviceNews
from homeserver.appservices.ephemeral_news import EphemeralNews
from homeserver.appservices.follower import Follower
from homeserver.e2e.key_counts import KeyCounts
from homeserver.storage import appservices as storage
from homeserver.storage.database import Database
from homeserver.sync.notifier import Notifier

_log = structlog.get_logger()

#: Seconds until the stream is looked at again where that failed.
_PAUSE = 1.0


class Traffic:
    """Wakes those who follow and deliver.

    ``start`` before clients are answered, then ``run`` for as long as the server runs.
    """

    def __init__(
        self,
        *,
        db: Database,
        notifier: Notifier,
        follower: Follower,
        ephemeral: EphemeralNews,
        devices: DeviceNews,
        deliveries: Mapping[str, Delivery],
        counts: KeyCounts,
    ) -> None:
        self._db = db
        self._notifier = notifier
        self._follower = follower
        self._ephemeral = ephemeral
        self._devices = devices
        self.deliveries = deliveries
        self._counts = counts
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()

    async def start(self) -> None:
        """Catch up with what happened before a crash, and go on sending."""
        rows = await storage.everyone(self._db.read)
        own = {service_id: rows[service_id] for service_id in self.deliveries}
        self._follower.start({service_id: row.pos for service_id, row in own.items()})
        await self._devices.start({service_id: row.devices_pos for service_id, row in own.items()})
        self._notifier.listeners.append(self._follower.new_events)
        self._notifier.user_listeners.append(self._devices.users_woken)
        self._notifier.news_listeners.append(self._news.set)
        self._counts.listeners.append(self._keys_changed)
        await self.look()
        for service_id, delivery in self.deliveries.items():
            await delivery.start(own[service_id].txn_id)

    async def run(self) -> None:
        """Look whenever there is news; a failure is logged and does not end it."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.look()
            except Exception:
                _log.exception("looking for news for application services failed")
                self._news.set()
                await asyncio.sleep(_PAUSE)

    def _keys_changed(self, user_id: str, device_id: str) -> None:
        self._devices.keys_changed(user_id, device_id)
        self._news.set()

    async def look(self) -> None:
        """Queue what is new up to now, and wake whoever delivers it."""
        async with self._looking:
            upto = self._notifier.position
            told = await self._follower.follow(upto)
            told |= await self._ephemeral.collect(upto)
            told |= await self._devices.collect(upto)
        for service_id in told:
            self.deliveries[service_id].wake()

    async def tick(self) -> None:
        """Try again to send what failed; called every second."""
        for delivery in self.deliveries.values():
            delivery.tick()

    async def idle(self) -> None:
        """Wait until everything that can be sent has been sent."""
        busy = True
        while busy:
            self._news.clear()
            await self.look()
            for delivery in self.deliveries.values():
                await delivery.idle()
            busy = self._news.is_set()
