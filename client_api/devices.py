"""A user's devices: seeing, naming and removing them (client-server API, "Device Management")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.errors import bad_json
from homeserver.replies import Json, Reply
from homeserver.storage.devices import Device
from homeserver.storage.last_seen import Use
from homeserver.users.confirmation import Confirmation
from homeserver.users.interactive_auth import Operation
from homeserver.users.last_seen import LastSeen
from homeserver.users.sessions import Sessions
from homeserver.web import Request

_MAX_DEVICES = 1_000


class _Name(msgspec.Struct):
    display_name: str | None = None


class DeviceApi:
    """Endpoints about the devices of the user who asks."""

    def __init__(self, sessions: Sessions, confirmation: Confirmation, last_seen: LastSeen) -> None:
        self._sessions = sessions
        self._confirmation = confirmation
        self._last_seen = last_seen

    async def devices(self, request: Request) -> Reply:
        """``GET /devices``."""
        user_id = request.requester.user_id
        devices, uses = await self._sessions.devices(user_id), await self._last_seen.of(user_id)
        return {"devices": [_as_json(device, user_id, uses.get(device.device_id)) for device in devices]}

    async def device(self, request: Request) -> Reply:
        """``GET /devices/{deviceId}``."""
        user_id = request.requester.user_id
        device = await self._sessions.device(user_id, request.params["deviceId"])
        return _as_json(device, user_id, (await self._last_seen.of(user_id)).get(device.device_id))

    async def rename_device(self, request: Request) -> Reply:
        """``PUT /devices/{deviceId}``; an application service makes a new device so."""
        wanted = request.decode(_Name)
        user_id, device_id = request.requester.user_id, request.params["deviceId"]
        if request.requester.appservice is not None:
            is_new = await self._sessions.put_device(user_id, device_id, wanted.display_name)
            return Json(b"{}", 201 if is_new else 200)
        await self._sessions.device(user_id, device_id)
        if wanted.display_name is not None:
            await self._sessions.rename_device(user_id, device_id, wanted.display_name)
        return {}

    async def delete_device(self, request: Request) -> Reply:
        """``DELETE /devices/{deviceId}``."""
        device_id = request.params["deviceId"]
        return await self._delete(request, f"DELETE /devices/{device_id}", [device_id])

    async def delete_devices(self, request: Request) -> Reply:
        """``POST /delete_devices``."""
        device_ids = request.json().get("devices")
        if (
            not isinstance(device_ids, list)
            or len(device_ids) > _MAX_DEVICES
            or not all(isinstance(device_id, str) for device_id in device_ids)
        ):
            raise bad_json("'devices' must be a list of device IDs")
        return await self._delete(request, "POST /delete_devices", device_ids)

    async def _delete(self, request: Request, endpoint: str, device_ids: Sequence[str]) -> Reply:
        user_id = request.requester.user_id
        body = request.json(empty_ok=True)
        if request.requester.appservice is None:
            await self._confirmation.confirm(Operation(endpoint, user_id), body)
        await self._sessions.log_out(user_id, device_ids)
        return {}


def _as_json(device: Device, user_id: str, use: Use | None) -> dict[str, Any]:
    # COMPAT: matrix-nio refuses devices that lack a key, and the specification wants text there.
    return {
        "device_id": device.device_id,
        "display_name": device.display_name or "",
        "last_seen_ip": (use.ip if use else None) or "",
        "last_seen_ts": use.at if use else device.last_seen_at,
        "user_id": user_id,
    }
