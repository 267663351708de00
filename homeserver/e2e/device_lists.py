"""The device lists of local users: what changed, and telling the servers it concerns.

A change is recorded in the transaction that makes it.  Who needs to know is worked out when
it is sent: the servers in the user's rooms at that moment.  A record is deleted in the
transaction that puts the EDUs made of it into the outbox, so that a crash loses none.
Specification: server-server API, "Device Management" and "End-to-End Encryption".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from homeserver.e2e.changes import KeyChanges
from homeserver.e2e.joining import Joining
from homeserver.protocol.e2e_keys import CrossSigningKey, Signature, shown_to, with_signatures
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.edus import RemoteEdus
from homeserver.rooms.room import MEMBER, Room
from homeserver.storage import cross_signing, device_lists, devices, e2e_keys, sharing
from homeserver.storage.database import Database, Transaction
from homeserver.storage.device_lists import SIGNING_KEYS, Change
from homeserver.storage.events import StoredEvent
from homeserver.tasks import Background

_BATCH = 100
#: Of more changes of one user at once only the newest is told: who misses the others fetches the whole list.
_MAX_AT_ONCE = 20


class DeviceLists:
    """Records changes of local users' devices and passes them on: a ``DeviceObserver``.

    ``send_names`` lets other servers know what people call their devices.
    """

    def __init__(
        self,
        *,
        db: Database,
        changes: KeyChanges,
        edus: RemoteEdus,
        joining: Joining,
        background: Background,
        server_name: str,
        send_names: bool,
    ) -> None:
        self._db = db
        self._changes = changes
        self._edus = edus
        self._joining = joining
        self._background = background
        self._server_name = server_name
        self._send_names = send_names
        self._telling: asyncio.Task[None] | None = None
        self._more_to_tell = False

    async def start(self) -> None:
        """Announce and send what was recorded before a crash."""
        await self._changes.announce(await device_lists.users_with_untold(self._db.scan))
        self._tell_servers()

    async def record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        """Part of the transaction that changes devices: forget the keys of those that are gone."""
        await e2e_keys.remove_devices(tx, user_id, removed)
        await device_lists.record(tx, user_id, [*changed, *removed])

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        """What was recorded for a user is on disk: tell everybody."""
        await self._changes.announce([user_id])
        self._tell_servers()

    def new_events(self, news: NewEvents) -> None:
        """A listener of the notifier: servers that come to share a room with a joining user are told."""
        if not any(server != self._server_name for server in news.room.servers):
            return  # as in most rooms there is nobody to tell
        for stored in news.events:
            event = stored.event
            if event.type != MEMBER or event.content.get("membership") != "join":
                continue
            user_id = event.state_key or ""
            if user_id in news.users:
                self._background.start(self._introduce(news.room, stored), "device list of who joined")

    async def idle(self) -> None:
        """Wait until nothing is left to tell."""
        while self._telling is not None:
            await self._telling

    async def devices_for_servers(self, user_id: str) -> dict[str, Any]:
        """The answer to ``GET /user/devices``: a user's devices that encrypt, and cross-signing keys."""
        # Before the devices: what changes in between is in the list, and comes once more as an update.
        stream_id = await device_lists.stream_id(self._db.read, user_id)
        with_keys = (await e2e_keys.devices_with_keys(self._db.read, [user_id])).get(user_id, [])
        signatures = await cross_signing.signatures_of(self._db.read, [user_id])
        found: list[dict[str, Any]] = []
        for device in with_keys:
            shown = shown_to(signatures.get((user_id, device.device_id), ()), None)
            entry = {
                "device_id": device.device_id,
                "keys": with_signatures(orjson.loads(device.keys), shown),
            }
            if self._send_names and device.display_name:
                entry["device_display_name"] = device.display_name
            found.append(entry)
        reply = {"user_id": user_id, "stream_id": stream_id, "devices": found}
        return {**reply, **await self._signing_keys(user_id)}

    async def _introduce(self, room: Room, join: StoredEvent) -> None:
        """Tell servers that share no other room with a user of one device: they will want the others."""
        if not await self._joining.is_new(room, join):
            return
        user_id = join.event.state_key or ""
        known = await sharing.servers_of(self._db.scan, user_id, but_room=room.nid)
        new = set(room.servers) - known - {self._server_name}
        newest = await device_lists.stream_id(self._db.read, user_id) if new else 0
        if not newest:
            return
        with_keys = (await e2e_keys.devices_with_keys(self._db.read, [user_id])).get(user_id, [])
        others = await devices.device_ids(self._db.read, user_id)
        device_id = with_keys[0].device_id if with_keys else next(iter(others), None)
        if device_id is not None:
            content = await self._update(Change(0, user_id, device_id, newest))
            for server in sorted(new):
                self._edus.send_edu(server, "m.device_list_update", content, durable=True)

    def _tell_servers(self) -> None:
        self._more_to_tell = True
        if self._telling is None:
            self._telling = self._background.start(self._tell_all(), "device list updates")

    async def _tell_all(self) -> None:
        try:
            while self._more_to_tell:
                self._more_to_tell = False
                while changes := await device_lists.untold(self._db.scan, _BATCH):
                    await self._tell(changes)
        finally:
            self._telling = None

    async def _tell(self, changes: Sequence[Change]) -> None:
        destinations = {
            user_id: await sharing.servers_of(self._db.scan, user_id) - {self._server_name}
            for user_id in {change.user_id for change in changes}
        }
        to_send: list[tuple[str, str, dict[str, Any]]] = []
        for change in _worth_telling(changes):
            if not destinations[change.user_id]:
                continue
            if change.device_id == SIGNING_KEYS:
                edu_type = "m.signing_key_update"
                content = {"user_id": change.user_id, **await self._signing_keys(change.user_id)}
            else:
                edu_type, content = "m.device_list_update", await self._update(change)
            to_send += [(server, edu_type, content) for server in sorted(destinations[change.user_id])]
        edus = self._edus.durable(to_send)

        async def work(tx: Transaction) -> None:
            await edus.store(tx)
            await device_lists.told(tx, [change.number for change in changes])

        await self._db.write(work)
        edus.send()

    async def _update(self, change: Change) -> dict[str, Any]:
        """What there is to say of a device now."""
        user_id, device_id = change.user_id, change.device_id
        content: dict[str, Any] = {
            "user_id": user_id,
            "device_id": device_id,
            "stream_id": change.stream_id,
            "prev_id": [change.stream_id - 1] if change.stream_id > 1 else [],
        }
        device = await devices.device(self._db.read, user_id, device_id)
        if device is None:
            return {**content, "deleted": True}
        if self._send_names and device.display_name:
            content["device_display_name"] = device.display_name
        keys = await e2e_keys.device_keys(self._db.read, user_id, device_id)
        if keys is not None:
            signatures = await cross_signing.signatures_of(self._db.read, [user_id])
            shown = shown_to(signatures.get((user_id, device_id), ()), None)
            content["keys"] = with_signatures(orjson.loads(keys), shown)
        return content

    async def _signing_keys(self, user_id: str) -> dict[str, Any]:
        keys = (await cross_signing.keys_of(self._db.read, [user_id])).get(user_id, {})
        signatures = await cross_signing.signatures_of(self._db.read, [user_id]) if keys else {}
        return public_signing_keys(user_id, keys, signatures)


def public_signing_keys(
    user_id: str,
    keys: Mapping[str, CrossSigningKey],
    signatures: Mapping[tuple[str, str], Sequence[Signature]],
) -> dict[str, Any]:
    """``master_key`` and ``self_signing_key`` of a user, as everybody may see them."""
    return {
        f"{usage}_key": with_signatures(
            key.content, shown_to(signatures.get((user_id, key.public_key), ()), None)
        )
        for usage, key in keys.items()
        if usage != "user_signing"
    }


def _worth_telling(changes: Sequence[Change]) -> list[Change]:
    """Not those of users who have too many of them, but for the newest."""
    count = Counter(change.user_id for change in changes)
    newest = {change.user_id: change.number for change in changes if change.device_id != SIGNING_KEYS}
    return [
        change
        for change in changes
        if count[change.user_id] <= _MAX_AT_ONCE
        or change.device_id == SIGNING_KEYS
        or change.number == newest[change.user_id]
    ]
