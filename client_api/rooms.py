"""Making and replacing rooms, and which ones a user is in (client-server API, "Rooms")."""

from __future__ import annotations

import msgspec

from homeserver.appservices.services import AppServices
from homeserver.replies import Reply
from homeserver.rooms.create import CreateRoom
from homeserver.rooms.directory import Directory
from homeserver.rooms.membership import Membership
from homeserver.rooms.new_room import NewRoom
from homeserver.rooms.upgrade import UpgradeRoom
from homeserver.web import Request


class _Upgrade(msgspec.Struct, frozen=True):
    new_version: str
    additional_creators: list[str] = []


class RoomsApi:
    """Endpoints about whole rooms."""

    def __init__(
        self,
        create: CreateRoom,
        upgrade: UpgradeRoom,
        membership: Membership,
        directory: Directory,
        *,
        services: AppServices,
        server_name: str,
    ) -> None:
        self._create = create
        self._upgrade = upgrade
        self._membership = membership
        self._directory = directory
        self._services = services
        self._server_name = server_name

    async def create_room(self, request: Request) -> Reply:
        """``POST /createRoom``."""
        wish = request.decode(NewRoom)
        if wish.room_alias_name:
            service = self._services.by_id.get(request.requester.appservice or "")
            self._services.check_alias(f"#{wish.room_alias_name}:{self._server_name}", service)
        return {"room_id": await self._create.create(request.requester.user_id, wish)}

    async def upgrade_room(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/upgrade``."""
        wish = request.decode(_Upgrade)
        replacement = await self._upgrade.upgrade(
            request.requester.user_id, request.params["roomId"], wish.new_version, wish.additional_creators
        )
        return {"replacement_room": replacement}

    async def joined_rooms(self, request: Request) -> Reply:
        """``GET /joined_rooms``."""
        return {"joined_rooms": await self._membership.joined_rooms(request.requester.user_id)}

    async def aliases(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/aliases``."""
        found = await self._directory.aliases_of(request.requester.user_id, request.params["roomId"])
        return {"aliases": found}
