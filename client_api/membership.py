"""Room membership (client-server API, "Room membership" and "Knocking on rooms")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.errors import invalid_param, missing_param
from homeserver.protocol.ids import is_room_id, is_user_id
from homeserver.replies import Reply
from homeserver.rooms.address_invites import AddressInvites, InvitedAddress
from homeserver.rooms.directory import Directory
from homeserver.rooms.membership import Membership
from homeserver.web import Request

_REDACT_EVENTS = "org.matrix.msc4293.redact_events"


class _Reason(msgspec.Struct, frozen=True):
    reason: str | None = None


class _Join(_Reason, frozen=True):
    #: Proof for third-party invites, of which this server makes none.
    third_party_signed: dict[str, Any] | None = None


class _Target(msgspec.Struct, frozen=True):
    user_id: str | None = None
    reason: str | None = None
    #: Third-party invites have these in place of ``user_id``.
    medium: str | None = None
    address: str | None = None
    id_server: str | None = None
    id_access_token: str | None = None


class _Removed(_Target, frozen=True):
    #: Whether clients are to redact what the user has sent (MSC4293).
    redact_events: bool | None = msgspec.field(name=_REDACT_EVENTS, default=None)


class MembershipApi:
    """Endpoints that change who is in a room."""

    def __init__(self, membership: Membership, directory: Directory, address_invites: AddressInvites) -> None:
        self._membership = membership
        self._directory = directory
        self._address_invites = address_invites

    async def join(self, request: Request) -> Reply:
        """``POST /join/{roomIdOrAlias}``."""
        room_id, servers = await self._place(request)
        await self._membership.join(request.requester.user_id, room_id, servers, _reason(request, _Join))
        return {"room_id": room_id}

    async def join_by_id(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/join``."""
        room_id = _room_id(request.params["roomId"])
        servers = _servers_in_query(request)
        await self._membership.join(request.requester.user_id, room_id, servers, _reason(request, _Join))
        return {"room_id": room_id}

    async def knock(self, request: Request) -> Reply:
        """``POST /knock/{roomIdOrAlias}``."""
        room_id, servers = await self._place(request)
        await self._membership.knock(request.requester.user_id, room_id, servers, _reason(request))
        return {"room_id": room_id}

    async def leave(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/leave``."""
        content = _reason(request)
        await self._membership.leave(request.requester.user_id, request.params["roomId"], content)
        return {}

    async def forget(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/forget``."""
        await self._membership.forget(request.requester.user_id, request.params["roomId"])
        return {}

    async def invite(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/invite``, by user id or by third-party identifier."""
        target = request.decode(_Target)
        if target.user_id is not None or target.medium is None:
            await self._membership.invite(*_about_somebody(request))
            return {}
        if target.address is None or target.id_server is None or target.id_access_token is None:
            raise missing_param("'address', 'id_server' or 'id_access_token' is missing")
        invited = InvitedAddress(target.medium, target.address, target.id_server, target.id_access_token)
        sender, room_id = request.requester.user_id, request.params["roomId"]
        await self._address_invites.invite(sender, room_id, invited, _content(target.reason))
        return {}

    async def kick(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/kick``."""
        await self._membership.kick(*_about_somebody_removed(request))
        return {}

    async def ban(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/ban``."""
        await self._membership.ban(*_about_somebody_removed(request))
        return {}

    async def unban(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/unban``."""
        await self._membership.unban(*_about_somebody(request))
        return {}

    async def _place(self, request: Request) -> tuple[str, list[str]]:
        """The room that is meant, and servers to reach it by."""
        place = request.params["roomIdOrAlias"]
        servers = _servers_in_query(request)
        if not place.startswith("#"):
            return _room_id(place), servers
        room_id, known = await self._directory.resolve(place)
        return room_id, [*servers, *known]


def _room_id(value: str) -> str:
    if not is_room_id(value):
        raise invalid_param("That is not a room id")
    return value


def _servers_in_query(request: Request) -> list[str]:
    # COMPAT: clients older than v1.12 say `server_name`.
    return request.query_all("via") or request.query_all("server_name")


def _content(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"reason": reason}


def _reason(request: Request, kind: type[_Reason] = _Reason) -> dict[str, Any]:
    return _content(request.decode(kind, empty_ok=True).reason)


def _about_somebody(request: Request) -> tuple[str, str, str, dict[str, Any]]:
    """Sender, room, target and content."""
    return _about(request, request.decode(_Target))


def _about_somebody_removed(request: Request) -> tuple[str, str, str, dict[str, Any]]:
    """The same, of which the content says whether clients are to redact what the target has sent."""
    removed = request.decode(_Removed)
    sender, room_id, user_id, content = _about(request, removed)
    told = {} if removed.redact_events is None else {_REDACT_EVENTS: removed.redact_events}
    return sender, room_id, user_id, {**content, **told}


def _about(request: Request, target: _Target) -> tuple[str, str, str, dict[str, Any]]:
    if target.user_id is None:
        raise missing_param("'user_id' is missing")
    if not is_user_id(target.user_id):
        raise invalid_param("'user_id' is not a user id")
    return request.requester.user_id, request.params["roomId"], target.user_id, _content(target.reason)
