"""Room aliases and published rooms (client-server API, "Room aliases", "Published room directory")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.appservices.services import AppService, AppServices
from homeserver.replies import Reply
from homeserver.rooms.directory import Directory
from homeserver.web import Request


class _Mapping(msgspec.Struct, frozen=True):
    room_id: str


class _Visibility(msgspec.Struct, frozen=True):
    visibility: Literal["public", "private"] = "public"


class DirectoryApi:
    """Endpoints that read and change what aliases lead to, and which rooms are published."""

    def __init__(self, directory: Directory, services: AppServices) -> None:
        self._directory = directory
        self._services = services

    async def alias(self, request: Request) -> Reply:
        """``GET /directory/room/{roomAlias}``."""
        room_id, servers = await self._directory.resolve(request.params["roomAlias"])
        return {"room_id": room_id, "servers": servers}

    async def add_alias(self, request: Request) -> Reply:
        """``PUT /directory/room/{roomAlias}``."""
        room_id = request.decode(_Mapping).room_id
        self._services.check_alias(request.params["roomAlias"], self._service(request))
        await self._directory.add_alias(request.requester.user_id, request.params["roomAlias"], room_id)
        return {}

    async def remove_alias(self, request: Request) -> Reply:
        """``DELETE /directory/room/{roomAlias}``."""
        requester, room_alias, service = (
            request.requester,
            request.params["roomAlias"],
            self._service(request),
        )
        self._services.check_alias(room_alias, service)
        may_all = requester.is_admin or (service is not None and service.owns_alias(room_alias))
        await self._directory.remove_alias(requester.user_id, room_alias, is_admin=may_all)
        return {}

    async def visibility(self, request: Request) -> Reply:
        """``GET /directory/list/room/{roomId}``."""
        published = await self._directory.is_published(request.params["roomId"])
        return {"visibility": "public" if published else "private"}

    async def set_visibility(self, request: Request) -> Reply:
        """``PUT /directory/list/room/{roomId}``."""
        requester = request.requester
        published = request.decode(_Visibility, empty_ok=True).visibility == "public"
        await self._directory.publish(
            requester.user_id, request.params["roomId"], published, is_admin=requester.is_admin
        )
        return {}

    def _service(self, request: Request) -> AppService | None:
        return self._services.by_id.get(request.requester.appservice or "")
