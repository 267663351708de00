"""Dehydrated devices: a device that nobody uses receives keys for whoever logs in next.

It is a device like any other, with keys and messages waiting, but has no access token:
whoever knows the secret it was encrypted with fetches its messages.  They stay until the device is
replaced or deleted, so that a client that fails half-way, or a second one, can begin again.
Specification: MSC3814, "Dehydrated Devices with SSSS".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.e2e.uploads import KeyUploads, NewKeys
from homeserver.errors import MatrixError, forbidden, invalid_param, not_found
from homeserver.storage import dehydrated_devices, devices, to_device
from homeserver.storage.database import Database, Transaction
from homeserver.users.sessions import DeviceObserver

_MAX_DATA = 65_536
_MAX_NAME_CHARS = 100
#: Messages in one reply.
PAGE = 100


class Messages(msgspec.Struct, frozen=True):
    """Messages for a device, each as JSON; ``next_batch`` is where the next ones follow."""

    events: Sequence[str]
    next_batch: str
    has_more: bool


class DehydratedDevices:
    """The dehydrated devices of local users, one for each at most.

    ``observers`` are told of devices as they are of those that log in; ``position`` gives
    the stream position up to which everything is on disk.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        uploads: KeyUploads,
        observers: Sequence[DeviceObserver],
        position: Callable[[], int],
    ) -> None:
        self._db = db
        self._clock = clock
        self._uploads = uploads
        self._observers = tuple(observers)
        self._position = position

    async def put(
        self, user_id: str, device_data: Mapping[str, Any], display_name: str | None, keys: NewKeys
    ) -> None:
        """Store a dehydrated device, in the place of the one there was.

        ``M_INVALID_PARAM`` for the id of a device that is in use, ``M_TOO_LARGE`` for much
        ``device_data``; otherwise raises as ``KeyUploads.store``.
        """
        data = orjson.dumps(device_data)
        if len(data) > _MAX_DATA:
            raise MatrixError(413, "M_TOO_LARGE", f"'device_data' has at most {_MAX_DATA} bytes")
        name = None if display_name is None else display_name[:_MAX_NAME_CHARS]
        device_id, now = keys.device_id, self._clock.now_ms()

        async def work(tx: Transaction) -> list[str]:
            removed = await self._remove(tx, user_id)
            if not await devices.add(tx, user_id, device_id, display_name=name, now=now):
                raise invalid_param("A device that is in use has this ID")
            await self._uploads.store(tx, keys)
            await dehydrated_devices.set_device(tx, user_id, device_id, data.decode())
            return removed

        removed = await self._db.write(work)
        self._uploads.stored(keys)
        await self._tell(user_id, [device_id], [each for each in removed if each != device_id])

    async def device(self, user_id: str) -> tuple[str, str]:
        """The id and ``device_data`` (JSON) of a user's dehydrated device; ``M_NOT_FOUND`` without one."""
        found = await dehydrated_devices.device(self._db.read, user_id)
        if found is None:
            raise _no_device()
        return found

    async def delete(self, user_id: str) -> str:
        """Delete the dehydrated device; its id.  ``M_NOT_FOUND`` without one."""

        async def work(tx: Transaction) -> list[str]:
            return await self._remove(tx, user_id)

        removed = await self._db.write(work)
        if not removed:
            raise _no_device()
        await self._tell(user_id, [], removed)
        return removed[0]

    async def messages(self, user_id: str, device_id: str, after: str | None) -> Messages:
        """The messages that wait for the dehydrated device, from ``next_batch`` of an earlier reply on.

        ``M_FORBIDDEN`` for any other device, ``M_INVALID_PARAM`` for what is no such token.
        """
        since = 0 if after is None else _place(after)
        found = await dehydrated_devices.device(self._db.read, user_id)
        if found is None or found[0] != device_id:
            raise forbidden("That is not the dehydrated device")
        waiting = await to_device.waiting(
            self._db.read, user_id, device_id, self._position(), PAGE + 1, after=since
        )
        page = waiting[:PAGE]
        upto = page[-1][0] if page else since
        return Messages([message for _, message in page], str(upto), len(waiting) > PAGE)

    async def _remove(self, tx: Transaction, user_id: str) -> list[str]:
        """Delete the device with everything it had; its id, if there was one."""
        found = await dehydrated_devices.device(tx, user_id)
        if found is None:
            return []
        removed = await devices.remove(tx, user_id, [found[0]])
        for observer in self._observers:
            await observer.record(tx, user_id, [], removed)
        return removed

    async def _tell(self, user_id: str, changed: Sequence[str], removed: Sequence[str]) -> None:
        for observer in self._observers:
            await observer.devices_changed(user_id, changed, removed)


def _place(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise invalid_param("That is no place in the messages")
    return int(token)


def _no_device() -> MatrixError:
    return not_found("There is no dehydrated device")
