"""Device lists of other servers' users, kept for as long as a room is shared with them.

A list is fetched when somebody first asks for it, then kept up to date by what its server
sends.  It is forgotten with the last shared room, since nobody sends changes from then on;
it is fetched anew when a change is missing.
Specification: server-server API, "Device Management" and "End-to-End Encryption".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import orjson
import structlog

from homeserver.clock import Clock
from homeserver.e2e.changes import KeyChanges
from homeserver.e2e.fetching import Fetching
from homeserver.e2e.joining import Joining
from homeserver.e2e.remote import RemoteKeys
from homeserver.errors import RemoteError
from homeserver.protocol.e2e_keys import (
    BadKey,
    CrossSigningKey,
    DeviceUpdate,
    Usage,
    Verdict,
    check_device_keys,
    cross_signing_key,
    device_update,
    display_name,
    is_name,
    is_stream_id,
    judge,
)
from homeserver.protocol.ids import is_user_id, server_name_of, server_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage import cross_signing, remote_devices, sharing
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import StoredEvent
from homeserver.storage.remote_devices import RemoteDevice, RemoteList
from homeserver.tasks import Background

_log = structlog.get_logger()

MAX_DEVICES = 2000
_FETCH_SECONDS = 30.0
_PAGE = 500
_MAX_STALE = 10_000

#: The keys of other servers' users that those servers tell of.
_PUBLIC: tuple[Usage, ...] = ("master", "self_signing")


class UserKeys(msgspec.Struct, frozen=True, gc=False):
    """A user's devices by id, and cross-signing keys by usage."""

    devices: Mapping[str, RemoteDevice]
    signing_keys: Mapping[str, CrossSigningKey]

    @property
    def visible(self) -> tuple[object, ...]:
        """What clients can see of it."""
        devices = [each for each in self.devices.values() if each.keys is not None]
        return (
            sorted((each.device_id, each.keys, each.display_name) for each in devices),
            sorted((usage, key.content) for usage, key in self.signing_keys.items()),
        )


NOTHING = UserKeys({}, {})


class RemoteDeviceLists:
    """Keeps, updates, fetches and forgets lists."""

    def __init__(
        self,
        *,
        db: Database,
        changes: KeyChanges,
        joining: Joining,
        remote: RemoteKeys,
        background: Background,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._db = db
        self._changes = changes
        self._joining = joining
        self._remote = remote
        self._background = background
        self._server_name = server_name
        self.fetching = Fetching(self._fetch, background, clock)

    async def start(self) -> None:
        """Forget lists of users with whom the last room was left unnoticed, and go on fetching stale ones."""
        last = ""
        while users := await remote_devices.kept_users(self._db.scan, last, _PAGE):
            last = users[-1]
            await self._forget_unshared(users)
        self.fetching.later(await remote_devices.stale_users(self._db.scan, _MAX_STALE))

    async def kept(self, user_ids: Collection[str]) -> dict[str, UserKeys]:
        """Those of the users whose lists are kept and complete."""
        users = list(user_ids)
        lists = await remote_devices.lists(self._db.scan, users)
        complete = [user_id for user_id, kept in lists.items() if not kept.stale]
        return await _user_keys(self._db.scan, complete)

    async def fetched(self, user_id: str) -> UserKeys | None:
        """A list fetched at once and kept; ``None`` when no room is shared.  Raises ``RemoteError``."""
        await self.fetching.now(user_id)
        lists = await remote_devices.lists(self._db.read, [user_id])
        return (await _user_keys(self._db.scan, [user_id]))[user_id] if user_id in lists else None

    async def shared(self, user_ids: Collection[str]) -> set[str]:
        """Those of the users with whom this server shares a room."""
        return await sharing.with_server(self._db.scan, list(user_ids), self._server_name)

    async def receive_update(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.device_list_update``; what is malformed or not the origin's is passed over."""
        try:
            update = device_update(content)
        except BadKey as error:
            _log.info("device list update refused", origin=origin, reason=str(error))
            return
        if not await self._concerns_us(origin, update.user_id):
            return
        self.fetching.heard_from(origin)
        self.fetching.disturb(update.user_id)
        user_id = update.user_id

        async def work(tx: Transaction) -> tuple[bool, bool]:
            """Whether clients see a change, and whether the list has to be fetched."""
            kept = (await remote_devices.lists(tx, [user_id])).get(user_id)
            if kept is None:
                return update.deleted or update.keys is not None, False
            before = (await remote_devices.devices(tx, [user_id])).get(user_id, {}).get(update.device_id)
            verdict = _judge(kept, update, before)
            if verdict is Verdict.GAP:
                await remote_devices.put_list(tx, RemoteList(user_id, kept.stream_id, stale=True))
            elif verdict is Verdict.APPLY:
                await _apply(tx, update)
                return _differs(before, update), False
            return False, verdict is Verdict.GAP

        visible, incomplete = await self._db.write(work)
        if incomplete:
            self.fetching.later([user_id])
        if visible:
            await self._changes.announce([user_id])

    async def receive_signing_keys(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.signing_key_update`` in the same way."""
        user_id = content.get("user_id")
        if not isinstance(user_id, str) or not await self._concerns_us(origin, user_id):
            return
        keys = _signing_keys(user_id, content)
        self.fetching.heard_from(origin)
        self.fetching.disturb(user_id)

        async def work(tx: Transaction) -> bool:
            if not await remote_devices.lists(tx, [user_id]):
                return bool(keys)
            known = (await cross_signing.keys_of(tx, [user_id])).get(user_id, {})
            new = [key for key in keys if known.get(key.usage) != key]
            await cross_signing.put(tx, user_id, new)
            return bool(new)

        if await self._db.write(work):
            await self._changes.announce([user_id])

    def new_events(self, news: NewEvents) -> None:
        """A listener of the notifier: notices with whom a room is no longer shared, or shared anew."""
        members = tuple(stored for stored in news.events if stored.event.type == MEMBER)
        if members and not self._are_our_own(news.room, members):
            self._background.start(self._memberships_changed(news.room, members), "shared device lists")

    def _are_our_own(self, room: Room, members: Sequence[StoredEvent]) -> bool:
        """Whether only local users are concerned: none of them has left the rooms of somebody else alone."""
        if room.servers.get(self._server_name, 0) <= 0:
            return False
        return all(server_of(stored.event.state_key or "") == self._server_name for stored in members)

    async def _memberships_changed(self, room: Room, members: Sequence[StoredEvent]) -> None:
        if room.servers.get(self._server_name, 0) <= 0:
            everybody = await sharing.joined_members(self._db.scan, room.nid)
            await self._forget_unshared(everybody)
        for stored in members:
            user_id = stored.event.state_key or ""
            if not is_user_id(user_id) or server_name_of(user_id) == self._server_name:
                continue
            if stored.event.content.get("membership") != "join":
                await self._forget_unshared([user_id])
            elif await remote_devices.lists(self._db.read, [user_id]):
                await self._joined(room, stored, user_id)

    async def _joined(self, room: Room, stored: StoredEvent, user_id: str) -> None:
        """Somebody whose list is kept joins: it is worth nothing if there was no shared room before."""
        count = await sharing.count_with_server(self._db.read, user_id, self._server_name)
        if count <= 1 and await self._joining.is_new(room, stored):
            await self._forget([user_id])

    async def _forget_unshared(self, user_ids: Sequence[str]) -> None:
        for start in range(0, len(user_ids), _PAGE):
            page = user_ids[start : start + _PAGE]
            kept = list(await remote_devices.lists(self._db.scan, page))
            if kept:
                await self._forget(list(set(kept) - await self.shared(kept)))

    async def _forget(self, user_ids: Sequence[str]) -> None:
        for user_id in user_ids:
            self.fetching.forget(user_id)
            self.fetching.disturb(user_id)
        if user_ids:
            await self._db.write(lambda tx: remote_devices.remove_lists(tx, user_ids))

    async def _concerns_us(self, origin: str, user_id: str) -> bool:
        if not is_user_id(user_id) or server_name_of(user_id) != origin:
            return False
        return bool(await sharing.with_server(self._db.read, [user_id], self._server_name))

    async def _fetch(self, user_id: str) -> None:
        """Fetch a list and keep it, if a room is shared with the user; raises ``RemoteError``."""
        server_name = server_name_of(user_id)
        reply = await self._remote.user_devices(server_name, user_id, timeout=_FETCH_SECONDS)
        stream_id, devices, keys = _parsed(server_name, user_id, reply)
        stale = self.fetching.was_disturbed(user_id)

        async def work(tx: Transaction) -> bool:
            """Whether clients see something else than what was kept before."""
            if not await sharing.with_server(tx, [user_id], self._server_name):
                return False
            was_kept = await remote_devices.lists(tx, [user_id])
            before = (await _user_keys(tx, [user_id]))[user_id]
            await remote_devices.remove_lists(tx, [user_id])
            await remote_devices.put_list(tx, RemoteList(user_id, stream_id, stale))
            await remote_devices.put_devices(tx, devices)
            await cross_signing.put(tx, user_id, keys)
            after = UserKeys({each.device_id: each for each in devices}, {key.usage: key for key in keys})
            return bool(was_kept) and before.visible != after.visible

        if await self._db.write(work):
            await self._changes.announce([user_id])


def _judge(kept: RemoteList, update: DeviceUpdate, before: RemoteDevice | None) -> Verdict:
    if kept.stale:
        return Verdict.GAP
    verdict = judge(kept.stream_id, update)
    # A server that lost its memory counts from the start again; nothing it repeats differs.
    return Verdict.GAP if verdict is Verdict.SEEN and _differs(before, update) else verdict


def _differs(before: RemoteDevice | None, update: DeviceUpdate) -> bool:
    """Whether clients would see a device differently: those without keys they do not see at all."""
    old = (before.keys, before.display_name) if before and before.keys is not None else None
    new = (update.keys, update.display_name) if update.keys is not None else None
    return old != new


async def _apply(tx: Transaction, update: DeviceUpdate) -> None:
    if update.deleted:
        await remote_devices.remove_device(tx, update.user_id, update.device_id)
    else:
        device = RemoteDevice(update.user_id, update.device_id, update.keys, update.display_name)
        await remote_devices.put_devices(tx, [device])
    await remote_devices.put_list(tx, RemoteList(update.user_id, update.stream_id, stale=False))


async def _user_keys(r: Any, user_ids: Sequence[str]) -> dict[str, UserKeys]:
    devices = await remote_devices.devices(r, user_ids)
    keys = await cross_signing.keys_of(r, user_ids)
    return {user_id: UserKeys(devices.get(user_id, {}), keys.get(user_id, {})) for user_id in user_ids}


def _parsed(
    server_name: str, user_id: str, reply: Mapping[str, Any]
) -> tuple[int, list[RemoteDevice], list[CrossSigningKey]]:
    """The parts of an answer to ``GET /user/devices``; devices that are none are left out."""
    stream_id, entries = reply.get("stream_id"), reply.get("devices")
    if not is_stream_id(stream_id) or not isinstance(entries, list):
        raise RemoteError(server_name, "The device list has no number", reachable=True, transient=False)
    devices: dict[str, RemoteDevice] = {}
    for entry in entries[:MAX_DEVICES]:
        device = _device(user_id, entry)
        if device is not None:
            devices[device.device_id] = device
    return int(stream_id), list(devices.values()), _signing_keys(user_id, reply)  # type: ignore[arg-type]


def _device(user_id: str, entry: object) -> RemoteDevice | None:
    device_id = entry.get("device_id") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(device_id, str) or not is_name(device_id):
        return None
    keys = entry.get("keys")
    try:
        text = check_device_keys(keys, user_id, device_id) if isinstance(keys, dict) and keys else None
    except BadKey:
        return None
    return RemoteDevice(user_id, device_id, text, display_name(entry.get("device_display_name")))


def _signing_keys(user_id: str, content: Mapping[str, Any]) -> list[CrossSigningKey]:
    """``master_key`` and ``self_signing_key``, where they are there and are what they should be."""
    keys = []
    for usage in _PUBLIC:
        try:
            if content.get(f"{usage}_key") is not None:
                keys.append(cross_signing_key(content[f"{usage}_key"], user_id, usage))
        except BadKey as error:
            _log.info("cross-signing key refused", user_id=user_id, reason=str(error))
    return keys


def device_json(device: RemoteDevice) -> dict[str, Any] | None:
    """A device as clients are told of it."""
    if device.keys is None:
        return None
    unsigned = {"device_display_name": device.display_name} if device.display_name else {}
    keys: dict[str, Any] = orjson.loads(device.keys)
    return {**keys, "unsigned": unsigned}
