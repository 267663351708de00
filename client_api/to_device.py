"""``PUT /sendToDevice`` (client-server API, "Send-to-Device messaging")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.replies import Reply
from homeserver.users.to_device import ToDevice
from homeserver.web import Request


class _Messages(msgspec.Struct, frozen=True):
    messages: dict[str, dict[str, dict[str, Any]]]


class ToDeviceApi:
    """The endpoint by which devices write to devices."""

    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    async def send(self, request: Request) -> Reply:
        """``PUT /sendToDevice/{eventType}/{txnId}``."""
        requester, params = request.requester, request.params
        body = request.decode(_Messages)
        await self._to_device.send(
            requester.user_id, requester.device_id, params["eventType"], params["txnId"], body.messages
        )
        return {}
