"""What application services that encrypt are told beside events: messages to their users' devices, whose
keys changed, and how many one-time keys their own devices have left.

Proposals MSC2409 (messages to devices) and MSC3202, which bridges use though the specification has
neither.  ``left`` is never told: a service takes no harm from a device list it needs no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import orjson

from homeserver.appservices.interest import Interest
from homeserver.appservices.services import AppService
from homeserver.e2e.changes import KeyChanges
from homeserver.e2e.key_counts import KeyCounts
from homeserver.storage import appservices as storage
from homeserver.storage.appservices import Waiting
from homeserver.storage.database import Database

_MESSAGES_AT_ONCE: Final = 100
_CHANGES_AT_ONCE: Final = 500
_MAX_REMEMBERED: Final = 10_000


class DeviceNewsPart(msgspec.Struct, frozen=True, gc=False):
    """What goes into one transaction, and how far changes of keys have been told with it."""

    messages: Sequence[Waiting] = ()
    changed: Sequence[str] = ()
    #: User id to device id to what is left of its keys.
    one_time_keys: dict[str, dict[str, dict[str, int]]] = msgspec.field(default_factory=dict)
    fallback_types: dict[str, dict[str, list[str]]] = msgspec.field(default_factory=dict)
    devices_pos: int = 0


class _News:
    """What one service is still to be told."""

    def __init__(self, devices_pos: int) -> None:
        #: Users who may have messages waiting.
        self.users: OrderedDict[str, None] = OrderedDict()
        #: Devices whose keys changed.
        self.devices: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.changed: OrderedDict[str, None] = OrderedDict()
        #: Up to where ``changed`` is complete.
        self.devices_pos = devices_pos


class DeviceNews:
    """Collects it for the services that want it."""

    def __init__(
        self,
        *,
        db: Database,
        interest: Interest,
        services: Iterable[AppService],
        changes: KeyChanges,
        counts: KeyCounts,
    ) -> None:
        self._db = db
        self._interest = interest
        self._services = {service.id: service for service in services}
        self._changes = changes
        self._counts = counts
        self._news: dict[str, _News] = {}
        self._told: set[str] = set()

    async def start(self, devices_pos: dict[str, int]) -> None:
        """Go on after a restart: ``devices_pos`` is how far each service was told of changed keys."""
        self._news = {service_id: _News(devices_pos[service_id]) for service_id in self._services}
        if self._news:
            self.users_woken(await storage.waiting_users(self._db.scan))

    def users_woken(self, user_ids: Iterable[str]) -> None:
        """These local users may have messages waiting: a listener of the notifier."""
        for user_id in user_ids:
            for service_id, service in self._services.items():
                if service.owns_user(user_id):
                    _note(self._news[service_id].users, user_id)
                    self._told.add(service_id)

    def keys_changed(self, user_id: str, device_id: str) -> None:
        """The one-time keys of a local device changed: a listener of the counts."""
        for service_id, service in self._services.items():
            if service.owns_user(user_id):
                _note(self._news[service_id].devices, (user_id, device_id))
                self._told.add(service_id)

    async def collect(self, upto: int) -> set[str]:
        """Look for changed keys up to an announced position; the services there is any news for."""
        oldest = min((news.devices_pos for news in self._news.values()), default=upto)
        while oldest < upto and self._changes.newest > oldest:
            found = await storage.device_list_changes(self._db.scan, oldest, upto, _CHANGES_AT_ONCE)
            for user_id, pos in found:
                for service_id in await self._interest.of_user(user_id, upto) & self._services.keys():
                    if pos > self._news[service_id].devices_pos:
                        _note(self._news[service_id].changed, user_id)
                        self._told.add(service_id)
            oldest = found[-1][1] if len(found) == _CHANGES_AT_ONCE else upto
            for news in self._news.values():
                news.devices_pos = max(news.devices_pos, oldest)
        told, self._told = self._told, set()
        return told

    async def take(self, service_id: str, upto: int) -> DeviceNewsPart:
        """The news for a service's next transaction; messages up to a position."""
        news = self._news.get(service_id)
        if news is None:
            return DeviceNewsPart(devices_pos=upto)
        users = _popped(news.users, _MAX_REMEMBERED)
        messages = await storage.waiting(self._db.scan, users, upto, _MESSAGES_AT_ONCE) if users else []
        if len(messages) == _MESSAGES_AT_ONCE:
            news.users.update(dict.fromkeys(users))
        devices = set(_popped(news.devices, _MESSAGES_AT_ONCE))
        devices.update((message.user_id, message.device_id) for message in messages)
        part = DeviceNewsPart(
            messages=messages, changed=_popped(news.changed, _CHANGES_AT_ONCE), devices_pos=news.devices_pos
        )
        for user_id, device_id in sorted(devices):
            counts = await self._counts.of(user_id, device_id)
            part.one_time_keys.setdefault(user_id, {})[device_id] = counts.one_time_keys
            part.fallback_types.setdefault(user_id, {})[device_id] = counts.unused_fallback_types
        return part


def body_of(part: DeviceNewsPart) -> dict[str, Any]:
    """The fields of a transaction's body, under the names of the proposals and of their later form."""
    body: dict[str, Any] = {}
    if part.messages:
        events = [_event(message) for message in part.messages]
        body |= {"to_device": events, "de.sorunome.msc2409.to_device": events}
    if part.changed:
        lists = {"changed": list(part.changed), "left": []}
        body |= {"device_lists": lists, "org.matrix.msc3202.device_lists": lists}
    if part.one_time_keys:
        body |= {
            "device_one_time_keys_count": part.one_time_keys,
            "org.matrix.msc3202.device_one_time_keys_count": part.one_time_keys,
            "device_unused_fallback_key_types": part.fallback_types,
            "org.matrix.msc3202.device_unused_fallback_key_types": part.fallback_types,
        }
    return body


def _event(message: Waiting) -> dict[str, Any]:
    return {
        **orjson.loads(message.message),
        "to_user_id": message.user_id,
        "to_device_id": message.device_id,
    }


def _note(remembered: OrderedDict[Any, None], key: object) -> None:
    remembered[key] = None
    if len(remembered) > _MAX_REMEMBERED:
        remembered.popitem(last=False)


def _popped(remembered: OrderedDict[Any, None], limit: int) -> list[Any]:
    return [remembered.popitem(last=False)[0] for _ in range(min(len(remembered), limit))]
