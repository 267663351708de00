"""What other servers ask about the devices of local users.

Any server that proves who it is is answered: clients need keys of people they share no room
with, to invite them into an encrypted one.
Specification: server-server API, "Device Management" and "End-to-End Encryption".
"""

from __future__ import annotations

import msgspec

from homeserver.e2e.claims import KeyClaims
from homeserver.e2e.device_lists import DeviceLists
from homeserver.e2e.queries import KeyQueries
from homeserver.errors import invalid_param
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.replies import Reply
from homeserver.web import Request


class _Query(msgspec.Struct, frozen=True):
    device_keys: dict[str, list[str]]


class _Claim(msgspec.Struct, frozen=True):
    one_time_keys: dict[str, dict[str, str]]


class DeviceKeyEndpoints:
    """The endpoints about devices and keys."""

    def __init__(
        self, *, lists: DeviceLists, queries: KeyQueries, claims: KeyClaims, server_name: str
    ) -> None:
        self._lists = lists
        self._queries = queries
        self._claims = claims
        self._server_name = server_name

    async def devices(self, request: Request) -> Reply:
        """``GET /user/devices/{userId}``."""
        user_id = request.params["userId"]
        if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise invalid_param("That is not a user of this server")
        return await self._lists.devices_for_servers(user_id)

    async def claim(self, request: Request) -> Reply:
        """``POST /user/keys/claim``."""
        wanted = request.decode(_Claim).one_time_keys
        local = {
            user_id: devices
            for user_id, devices in wanted.items()
            if is_user_id(user_id) and server_name_of(user_id) == self._server_name
        }
        return {"one_time_keys": await self._claims.claim_local(local)}

    async def query(self, request: Request) -> Reply:
        """``POST /user/keys/query``."""
        return await self._queries.query_for_server(request.decode(_Query).device_keys)
