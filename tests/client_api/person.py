"""Somebody with a device that encrypts, over HTTP."""

from __future__ import annotations

from typing import Any

from tests.client_api.account_server import AccountServer
from tests.identities import Device, Identity

CURVE = "signed_curve25519"


class Person:
    """Somebody with a device, and what they do with keys."""

    def __init__(self, server: AccountServer, name: str, token: str, device_id: str) -> None:
        self.server = server
        self.name = name
        self.token = token
        self.user_id = f"@{name}:a.org"
        self.device = Device(self.user_id, device_id)
        self.identity = Identity(self.user_id)

    @classmethod
    async def arrives(cls, server: AccountServer, name: str, device_id: str = "PHONE") -> Person:
        return cls(server, name, await server.user(name, device_id=device_id), device_id)

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The reply to a request that succeeds."""
        status, reply = await self.server.call(method, path, body, token=self.token)
        assert status == 200, reply
        return reply

    async def refused(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        return await self.server.refused("POST", path, body, token=self.token)

    async def upload(self, **body: Any) -> dict[str, int]:
        counts: dict[str, int] = (await self.call("POST", "/keys/upload", body))["one_time_key_counts"]
        return counts

    async def query(self, *user_ids: str) -> Any:
        return await self.call("POST", "/keys/query", {"device_keys": {user_id: [] for user_id in user_ids}})

    async def claim(self, user_id: str, device_id: str) -> dict[str, Any]:
        wanted = {"one_time_keys": {user_id: {device_id: CURVE}}}
        reply = await self.call("POST", "/keys/claim", wanted)
        assert reply["failures"] == {}
        keys: dict[str, Any] = reply["one_time_keys"].get(user_id, {}).get(device_id, {})
        return keys

    async def sync(self, since: str | None = None, timeout: int = 0) -> Any:
        query = f"?timeout={timeout}" + (f"&since={since}" if since else "")
        return await self.call("GET", f"/sync{query}")

    async def cross_sign(self) -> None:
        await self.call("POST", "/keys/device_signing/upload", self.identity.upload())
