"""Dehydrated devices, under the unstable prefix of MSC3814."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from homeserver.e2e.dehydration import DehydratedDevices
from homeserver.e2e.uploads import new_keys
from homeserver.errors import bad_json
from homeserver.replies import Reply
from homeserver.web import Request


class _Device(msgspec.Struct, frozen=True):
    device_id: str
    device_data: dict[str, Any]
    device_keys: dict[str, Any]
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    initial_device_display_name: str | None = None


class _From(msgspec.Struct, frozen=True):
    next_batch: str | None = None


class DehydratedDeviceApi:
    """Endpoints about the dehydrated device of the user who asks."""

    def __init__(self, dehydrated: DehydratedDevices) -> None:
        self._dehydrated = dehydrated

    async def put(self, request: Request) -> Reply:
        """``PUT /dehydrated_device``."""
        wanted, user_id = request.decode(_Device), request.requester.user_id
        if not isinstance(wanted.device_data.get("algorithm"), str):
            raise bad_json("'device_data' names no algorithm")
        keys = new_keys(
            user_id,
            wanted.device_id,
            device_keys=wanted.device_keys,
            one_time_keys=wanted.one_time_keys or {},
            fallback_keys=wanted.fallback_keys or {},
        )
        await self._dehydrated.put(user_id, wanted.device_data, wanted.initial_device_display_name, keys)
        return {"device_id": wanted.device_id}

    async def device(self, request: Request) -> Reply:
        """``GET /dehydrated_device``."""
        device_id, data = await self._dehydrated.device(request.requester.user_id)
        return {"device_id": device_id, "device_data": orjson.Fragment(data)}

    async def delete(self, request: Request) -> Reply:
        """``DELETE /dehydrated_device``."""
        return {"device_id": await self._dehydrated.delete(request.requester.user_id)}

    async def events(self, request: Request) -> Reply:
        """``GET /dehydrated_device/{device_id}/events``; the last reply has no ``next_batch``."""
        return await self._events(request, request.query.get("from"), always_next=False)

    async def events_as_before(self, request: Request) -> Reply:
        """``POST /dehydrated_device/{device_id}/events``.

        COMPAT: older versions of the proposal, and clients written for them, ask on
        until a reply has no events.
        """
        wanted = request.decode(_From, empty_ok=True)
        return await self._events(request, wanted.next_batch, always_next=True)

    async def _events(self, request: Request, after: str | None, *, always_next: bool) -> Reply:
        found = await self._dehydrated.messages(request.requester.user_id, request.params["device_id"], after)
        reply: dict[str, Any] = {"events": [orjson.Fragment(message) for message in found.events]}
        if always_next or found.has_more:
            reply["next_batch"] = found.next_batch
        return reply
